"""Diffusion models: images from noise, images re-made from some noise on, places of images, and training that goes on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from safetensors.numpy import load_file

from detector.fakes import diffusion
from detector.fakes.diffusion import BANK, Sampler, denoised, levels, train

WHOLE, TEXTURE = (replace(design, widths=(8,) * 3) for design in BANK)


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def texture(chests, tmp_path_factory):
    folder = tmp_path_factory.mktemp("texture")
    return Sampler(TEXTURE, train(TEXTURE, chests, folder, seed=1, steps=60, progress=lambda done, total: None))


def test_images_are_made_from_noise(chests, tmp_path):
    sampler = Sampler(WHOLE, train(WHOLE, chests, tmp_path, seed=1, steps=4, progress=lambda done, total: None))
    first, second = sampler.make(2, 5, steps=3)
    assert (first.shape, first.dtype) == ((128, 128), np.uint8)
    assert not np.array_equal(first, second)
    assert np.array_equal(next(sampler.make(1, 5, steps=3)), first)
    fake = next(sampler.fakes("nih", 1, 5))
    assert (fake.family, fake.generator, fake.source, fake.parent) == ("diffusion", "whole-128", "nih", None)


@pytest.mark.parametrize("first", [0.05, 0.1, 0.25, 0.45, 1])
def test_grain_is_neither_smoothed_away_nor_added(first):
    """What is white grain and nothing else has a velocity that can be written down: steps with it give back such grain."""
    grain = 4 / 127.5

    def velocity(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        cosine, sine = torch.cos(t * math.pi / 2), torch.sin(t * math.pi / 2)
        return sine * cosine * (1 - grain**2) / (cosine**2 * grain**2 + sine**2) * noisy

    rng = torch.Generator().manual_seed(3)
    noise, image = (torch.randn(1, 1, 128, 128, generator=rng) for _ in range(2))
    start = math.cos(first * math.pi / 2) * grain * image + math.sin(first * math.pi / 2) * noise
    made = denoised(velocity, start, levels(first, 40 if first == 1 else 10))
    assert float(made.std()) == pytest.approx(grain, rel=0.04)


def test_an_image_is_remade_in_place_and_more_so_from_more_noise(texture, chests):
    image = chests[1][100:203, 90:221]
    errors = []
    for strength in (0.02, 0.3):
        made = texture.remake(image, strength, seed=1)
        assert (made.shape, made.dtype) == (image.shape, np.uint8)
        errors.append(np.abs(made.astype(float) - image).mean())
    assert 0 < errors[0] < errors[1] < 40


def test_only_a_place_is_remade(texture, chests):
    image = chests[1][100:228, 90:218]
    mask = np.zeros(image.shape, bool)
    mask[40:80, 50:90] = True
    made = texture.repaint(image, mask, 0.3, seed=1)
    assert np.array_equal(made[~mask], image[~mask])
    assert (made[mask] != image[mask]).mean() > 0.5


def test_noise_that_was_not_learnt_is_refused(texture, chests):
    for strength in (0, diffusion.FAINTEST, 0.46):
        with pytest.raises(ValueError, match="trained for"):
            texture.remake(chests[0], strength, seed=1)


def test_training_that_was_stopped_ends_where_it_would_have(chests, tmp_path, monkeypatch):
    monkeypatch.setattr(diffusion, "CHECKPOINT_EVERY", 3)

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise Stopped

    whole = train(TEXTURE, chests, tmp_path / "whole", seed=1, steps=8, progress=lambda done, total: None)
    with pytest.raises(Stopped):
        train(TEXTURE, chests, tmp_path / "stopped", seed=1, steps=8, progress=stop)
    seen: list[int] = []
    resumed = train(TEXTURE, chests, tmp_path / "stopped", seed=1, steps=8, progress=lambda done, total: seen.append(done))
    assert seen[0] == 4
    expected, found = load_file(whole), load_file(resumed)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-3)
