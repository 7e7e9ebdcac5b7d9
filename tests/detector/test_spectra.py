"""Simulated spectra: what each leaves is seen by the statistics that look for it, and the picture stays where it was."""

from __future__ import annotations

import numpy as np
import pytest

from detector.fakes.spectra import SIMULATIONS, flattened, lattice, resampled
from detector.statistics import NAMES, statistics


def of(names, pixels):
    found = statistics(pixels)
    return max(float(found[NAMES.index(name)]) for name in names)


@pytest.mark.parametrize("simulation", [*SIMULATIONS, flattened])
def test_the_picture_stays_where_it_was(simulation, chests):
    for number, image in enumerate(chests):
        part = image[20:231, 30:330]
        made = simulation(part, np.random.default_rng(number))
        assert (made.shape, made.dtype) == (part.shape, np.uint8)
        assert 0 < np.abs(made.astype(float) - part).mean() < 8
        assert np.corrcoef(made.ravel(), part.ravel())[0, 1] > 0.96
        assert np.array_equal(simulation(part, np.random.default_rng(number)), made)


@pytest.mark.parametrize("simulation", [lattice, resampled])
def test_most_leave_a_lattice(simulation, chests):
    grids = ("grid2", "grid4", "grid8")
    before = of(grids, chests[0])
    rises = [of(grids, simulation(chests[0], np.random.default_rng(seed))) - before for seed in range(12)]
    assert np.mean(rises) > 0.5


def test_a_spectrum_is_raised_or_lowered(chests):
    image = chests[0]
    changes = [of(["slope"], flattened(image, np.random.default_rng(seed))) - of(["slope"], image) for seed in range(8)]
    assert min(changes) < -0.1 < 0.1 < max(changes)
