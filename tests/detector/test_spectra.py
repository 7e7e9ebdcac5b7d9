"""Simulated spectra: what each leaves is seen by the statistics that look for it, and the picture stays where it was."""

from __future__ import annotations

import numpy as np
import pytest

from detector.augment import residual
from detector.fakes.spectra import ALTERATIONS, SIMULATIONS, flattened, grain, lattice, resampled
from detector.statistics import NAMES, statistics


def of(names, pixels):
    found = statistics(pixels)
    return max(float(found[NAMES.index(name)]) for name in names)


@pytest.mark.parametrize("simulation", [*SIMULATIONS, *ALTERATIONS])
def test_the_picture_stays_where_it_was(simulation, chests):
    for number, image in enumerate(chests):
        part = image[20:231, 30:330]
        made = simulation(part, np.random.default_rng(number))
        assert (made.shape, made.dtype) == (part.shape, np.uint8)
        assert 0 < np.abs(made.astype(float) - part).mean() < 8
        assert np.corrcoef(made.ravel(), part.ravel())[0, 1] > 0.95
        assert np.array_equal(simulation(part, np.random.default_rng(number)), made)


@pytest.mark.parametrize("simulation", [lattice, resampled])
def test_most_leave_a_lattice(simulation, chests):
    grids = ("lattice2", "lattice4", "lattice8")
    before = of(grids, chests[0])
    rises = [of(grids, simulation(chests[0], np.random.default_rng(seed))) - before for seed in range(12)]
    assert np.mean(rises) > 0.5


def test_what_is_resampled_is_smoother_than_life_or_grainier(chests):
    grown = [
        residual(resampled(image, np.random.default_rng(seed))).std() / residual(image).std()
        for seed in range(4)
        for image in chests
    ]
    assert min(grown) < 0.8 < 1.2 < max(grown) < 2.5


def test_a_spectrum_is_raised_or_lowered(chests):
    image = chests[0]
    changes = [of(["slope"], flattened(image, np.random.default_rng(seed))) - of(["slope"], image) for seed in range(8)]
    assert min(changes) < -0.1 < 0.1 < max(changes)


def test_grain_is_the_sensors_own_or_another(chests):
    rng = np.random.default_rng(0)
    shape = (384, 384)
    # A sensor whose noise is coarse and grows with the brightness, from left to right.
    ramp = np.linspace(60, 190, shape[1])
    coarse = rng.normal(0, 1, shape)
    coarse = (coarse + np.roll(coarse, 1, 0) + np.roll(coarse, 1, 1) + np.roll(coarse, (1, 1), (0, 1))) / 2
    image = np.round(ramp + coarse * ramp / 40).astype(np.uint8)
    likeness, growth = [], []
    for seed in range(24):
        added = grain(image, np.random.default_rng(seed)).astype(float) - image
        likeness.append(np.corrcoef(added[:, 1:].ravel(), added[:, :-1].ravel())[0, 1])
        growth.append(added[:, -96:].std() / added[:, :96].std())
    own = np.array(likeness) > 0.15
    assert 6 <= own.sum() <= 18
    assert min(np.array(growth)[own]) > 1.4
    # Blue noise has neighbours that differ, white noise none that are alike; either may be as strong everywhere.
    assert min(likeness) < -0.05
    assert np.abs(likeness)[~own].min() < 0.05
    assert np.abs(np.array(growth)[~own] - 1).min() < 0.1
