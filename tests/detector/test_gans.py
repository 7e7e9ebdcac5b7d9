"""GANs: each makes images of its side from noise, goes on where it was stopped, and its discriminator has an opinion."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from safetensors.numpy import load_file

from detector.fakes import gans
from detector.fakes.gans import BANK, FIRST, Design, Inventor, Judge, train


class Stopped(Exception):
    pass


@pytest.mark.parametrize("design", BANK, ids=lambda design: design.name)
def test_images_are_made_from_noise(design, chests, tmp_path):
    levels = set()
    weights = train(
        design,
        chests,
        tmp_path,
        seed=1,
        steps=6,
        progress=lambda done, total: levels.add(gans._stage(done - 1, total, len(design.widths) - 1)[0]),
    )
    assert max(levels) == len(design.widths) - 1
    assert FIRST << max(levels) == design.side
    inventor = Inventor(design, weights)
    first, second = inventor.make(2, 3)
    assert (first.shape, first.dtype) == ((design.side, design.side), np.uint8)
    assert not np.array_equal(first, second)
    assert np.array_equal(next(inventor.make(1, 3)), first)
    (fake,) = inventor.fakes("nih", 1, 3)
    assert (fake.family, fake.generator, fake.source, fake.parent) == ("gan", design.name, "nih", None)
    judge = Judge(design, tmp_path / f"{design.name}-discriminator.safetensors")
    assert judge.score(first) != judge.score(chests[0])


def test_the_last_level_is_blended_in_and_then_counts_whole():
    shares = [gans._stage(step, 100, 4) for step in range(100)]
    assert [level for level, _ in shares] == sorted(level for level, _ in shares)
    assert shares[0] == (1, 1.0)
    assert shares[-1] == (4, 1.0)
    assert min(new for level, new in shares if level == 4) < 0.2


def test_a_discriminator_learns_what_the_generator_makes(chests, tmp_path):
    design = Design("small", "t4", 32, "plain")
    weights = train(design, chests, tmp_path, seed=2, steps=120, progress=lambda done, total: None)
    judge = Judge(design, tmp_path / f"{design.name}-discriminator.safetensors")
    made = [judge.score(image) for image in Inventor(design, weights).make(6, 1)]
    assert np.median(made) > np.median([judge.score(image) for image in chests])


def test_training_that_was_stopped_ends_where_it_would_have(chests, tmp_path, monkeypatch):
    monkeypatch.setattr(gans, "CHECKPOINT_EVERY", 3)
    design = Design("small", "nearest", 32, "noise")

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise Stopped

    whole = train(design, chests, tmp_path / "whole", seed=1, steps=8, progress=lambda done, total: None)
    with pytest.raises(Stopped):
        train(design, chests, tmp_path / "stopped", seed=1, steps=8, progress=stop)
    seen: list[int] = []
    resumed = train(design, chests, tmp_path / "stopped", seed=1, steps=8, progress=lambda done, total: seen.append(done))
    assert seen[0] == 4
    expected, found = load_file(whole), load_file(resumed)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-2, atol=1e-2)
