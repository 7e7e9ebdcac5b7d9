"""The bank of autoencoders: each re-makes an image in place, learns, and goes on where it was stopped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from safetensors.numpy import load_file

from detector.fakes import autoencoders
from detector.fakes.autoencoders import BANK, Remaker, train

SMALL = [replace(design, width=4, latent=4) for design in BANK]


class Stopped(Exception):
    pass


@pytest.mark.parametrize("design", SMALL, ids=lambda design: design.name)
def test_an_image_is_remade_in_place(design, chests, tmp_path):
    weights = train(design, chests, tmp_path, seed=1, steps=8, progress=lambda done, total: None)
    image = chests[0][:75, :131]
    made = Remaker(design, weights)(image)
    assert (made.shape, made.dtype) == (image.shape, np.uint8)
    assert made.std() > 0


def test_training_brings_the_image_nearer(chests, tmp_path):
    errors = []
    for steps in (2, 150):
        weights = train(SMALL[0], chests, tmp_path / str(steps), seed=1, steps=steps, progress=lambda done, total: None)
        made = Remaker(SMALL[0], weights)(chests[0])
        errors.append(np.abs(made.astype(float) - chests[0]).mean())
    assert errors[1] < errors[0] * 0.7


def test_training_that_was_stopped_ends_where_it_would_have(chests, tmp_path, monkeypatch):
    monkeypatch.setattr(autoencoders, "CHECKPOINT_EVERY", 3)
    design = SMALL[3]

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
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4)
