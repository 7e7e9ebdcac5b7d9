"""Each statistic sees what it is named after, and not what it isn't."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from detector.augment import recoded, scaled, to_grey
from detector.statistics import NAMES, statistics


def of(name: str, pixels: np.ndarray) -> float:
    return float(statistics(pixels)[NAMES.index(name)])


def with_lattice(image: np.ndarray, period: int) -> np.ndarray:
    rows, columns = np.indices(image.shape)
    return to_grey(image + 3.0 * ((rows % period == 0) & (columns % period == 0)) * period)


@pytest.mark.parametrize("period", [2, 4, 8, 16])
def test_a_lattice_is_seen_at_its_period(chests, period):
    for image in chests:
        assert of(f"lattice{period}", with_lattice(image, period)) > of(f"lattice{period}", image) + 1.0


def test_a_lattice_far_below_the_noise_is_seen_even_through_jpeg():
    rng = np.random.default_rng(1)
    noisy = to_grey(rng.normal(120, 6, (512, 512)))
    weak = to_grey(noisy + np.tile(rng.normal(0, 0.8, (8, 8)), (64, 64)))
    assert of("lattice8", weak) > of("lattice8", noisy) + 1.5
    assert of("lattice8", recoded(weak, "JPEG", 75)) > of("lattice8", recoded(noisy, "JPEG", 75)) + 0.7
    for period in (2, 4, 8, 16):
        assert abs(of(f"lattice{period}", noisy)) < 1


def test_a_period_is_not_seen_in_its_double():
    rng = np.random.default_rng(2)
    image = to_grey(rng.normal(120, 6, (512, 512)) + np.tile(rng.normal(0, 2, (4, 4)), (128, 128)))
    assert of("lattice4", image) > 3
    assert of("lattice8", image) < 1
    assert of("lattice16", image) < 1


def test_a_lattice_that_was_scaled_is_a_peak_elsewhere(chests):
    for image in chests[:3]:
        assert of("peak", scaled(with_lattice(image, 4), 0.8)) > of("peak", scaled(image, 0.8)) + 0.5


def test_jpeg_leaves_its_blocks_on_the_axes_alone(chests):
    for image in chests:
        through = recoded(image, "JPEG", 60)
        assert of("blocks", through) > of("blocks", image) + 0.1
        assert of("lattice8", through) < of("lattice8", image) + 1.0


def test_blur_makes_the_spectrum_fall_faster(chests):
    for image in chests:
        assert of("slope", to_grey(ndimage.gaussian_filter(image.astype(np.float32), 0.8))) < of("slope", image)


def test_noise_that_follows_the_signal_is_told_from_noise_that_does_not():
    rng = np.random.default_rng(1)
    light = np.linspace(30, 220, 256)[None] * np.ones((256, 1))
    quantum = to_grey(light + rng.normal(0, 1, light.shape) * np.sqrt(light) / 2)
    constant = to_grey(light + rng.normal(0, 5, light.shape))
    assert of("shot", quantum) > 0.8
    assert abs(of("shot", constant)) < 0.3


def test_levels_that_nobody_has_are_counted(chests):
    coarse = (chests[0] // 4 * 4).astype(np.uint8)
    assert of("gaps", coarse) == pytest.approx(0.75, abs=0.03)
    assert of("gaps", chests[0]) < 0.3


def test_they_are_of_any_place_and_finite(chests):
    for image in (chests[0][:96, :97], chests[3][50:200, 60:260], np.zeros((128, 128), np.uint8)):
        assert np.isfinite(statistics(image)).all()
    with pytest.raises(ValueError, match="96"):
        statistics(chests[0][:95])
