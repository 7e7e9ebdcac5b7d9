"""GANs: each makes images of its side from noise, goes on where it was stopped, and its discriminator has an opinion."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from safetensors.numpy import load_file

from detector.fakes import gans
from detector.fakes.gans import BANK, CODE, FIRST, LATENT, LOWEST, Design, Discriminator, Generator, Inventor, Judge, train


class Stopped(Exception):
    pass


def nothing(done: int, total: int) -> None:
    pass


@pytest.mark.parametrize("design", BANK, ids=lambda design: design.name)
def test_images_are_made_from_noise(design, chests, tmp_path):
    levels = set()
    weights = train(
        design,
        chests,
        tmp_path,
        seed=1,
        steps=8,
        progress=lambda done, total: levels.add(gans._stage(done - 1, total, len(design.widths) - 1)[0]),
    )
    assert levels == set(range(LOWEST, len(design.widths)))
    assert FIRST << max(levels) == design.side
    inventor = Inventor(design, weights)
    first, second = inventor.make(2, 3)
    assert (first.shape, first.dtype) == ((design.side, design.side), np.uint8)
    assert not np.array_equal(first, second)
    assert np.array_equal(next(inventor.make(1, 3)), first)
    (fake,) = inventor.fakes("nih", 1, 3)
    assert (fake.family, fake.generator, fake.source, fake.parent) == ("gan", design.name, "nih", None)
    judge = Judge(design, tmp_path / f"{design.name}-discriminator.safetensors")
    assert judge.score(first) == judge.score(first)
    assert judge.score(first) != judge.score(chests[0])


@pytest.mark.parametrize("design", BANK, ids=lambda design: design.name)
def test_a_level_is_blended_in_from_what_was_there(design):
    torch.manual_seed(1)
    top = len(design.widths) - 1
    generator, judge = Generator(design).eval(), Discriminator(design).eval()
    z = torch.randn(2, LATENT)
    with torch.inference_mode():
        torch.manual_seed(2)
        low = torch.nn.functional.interpolate(generator(z, top - 1).atanh(), scale_factor=2, mode="bilinear").tanh()
        torch.manual_seed(2)
        begun = generator(z, top, 0.0)
        torch.manual_seed(2)
        whole = generator(z, top)
        if design.extras != "noise":  # What it adds differs with how much was added before.
            torch.testing.assert_close(begun, low, rtol=0, atol=1e-4)
        assert (whole - begun).abs().mean() > 1e-3
        small = torch.nn.functional.avg_pool2d(begun, 2)
        torch.testing.assert_close(judge(begun, top, 0.0), judge(small, top - 1), rtol=0, atol=1e-4)
        assert (judge(begun, top) - judge(begun, top, 0.0)).abs().mean() > 1e-6


def test_the_last_level_is_blended_in_and_then_counts_whole():
    shares = [gans._stage(step, 100, 4) for step in range(100)]
    assert [level for level, _ in shares] == sorted(level for level, _ in shares)
    assert shares[0] == (LOWEST, 1.0)
    assert shares[-1] == (4, 1.0)
    assert min(new for level, new in shares if level == 4) < 0.2


def test_codes_are_what_the_images_differ_in_most(chests):
    squares = gans.squared(chests, 32)
    codes = gans._codes(squares).numpy()
    assert codes.shape == (len(chests), CODE)
    parts = codes[:, : len(chests) - 1]
    assert not codes[:, len(chests) - 1 :].any()
    np.testing.assert_allclose(parts.T @ parts / len(chests), np.eye(len(chests) - 1), atol=1e-5)
    flat = squares.reshape(len(chests), -1) - squares.reshape(len(chests), -1).mean(0)
    given_back = parts @ np.linalg.lstsq(parts, flat, rcond=None)[0]
    np.testing.assert_allclose(given_back, flat, atol=0.1)


def test_what_the_generator_makes_differs_less_from_radiographs_than_at_first(chests, tmp_path):
    design = Design("small", "t4", 32, "plain", most=32)
    real = gans.squared(chests, 32).astype(float)
    away = []
    for steps in (1, 60):
        weights = train(design, chests, tmp_path / str(steps), seed=2, steps=steps, progress=nothing)
        made = np.stack(list(Inventor(design, weights).make(12, 1))).astype(float)
        away.append(np.abs(made[:, None] - real).mean((2, 3)).min(1).mean())
    assert away[1] < 0.8 * away[0]


def test_a_discriminator_learns_what_the_generator_makes(chests, tmp_path):
    design = Design("small", "t4", 32, "plain", most=32)
    weights = train(design, chests, tmp_path, seed=2, steps=120, progress=nothing)
    judge = Judge(design, tmp_path / f"{design.name}-discriminator.safetensors")
    made = [judge.score(image) for image in Inventor(design, weights).make(6, 1)]
    assert np.median(made) > np.median([judge.score(image) for image in chests])


def test_training_that_was_stopped_ends_where_it_would_have(chests, tmp_path, monkeypatch):
    monkeypatch.setattr(gans, "CHECKPOINT_EVERY", 3)
    design = Design("small", "nearest", 32, "noise", most=32)

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise Stopped

    whole = train(design, chests, tmp_path / "whole", seed=1, steps=8, progress=nothing)
    with pytest.raises(Stopped):
        train(design, chests, tmp_path / "stopped", seed=1, steps=8, progress=stop)
    seen: list[int] = []
    resumed = train(design, chests, tmp_path / "stopped", seed=1, steps=8, progress=lambda done, total: seen.append(done))
    assert seen[0] == 4
    for name in (whole.name, "small-discriminator.safetensors"):
        expected, found = load_file(whole.parent / name), load_file(resumed.parent / name)
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-2, atol=1e-2)
