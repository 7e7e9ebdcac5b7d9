"""Fits a calibration: weights of the statistics on the images that the network learnt from, everything else on images that it
never saw.

The four weights of the combined score are fitted to the same held-out images that give the thresholds. Four numbers can't learn
three hundred images by heart; what the thresholds are worth is measured on the test split all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from detector.calibration import Calibration, Group, distance, terms
from detector.evidence import SIZES
from detector.trials import Trial

_RIDGE: Final = 1e-2
_FEWEST: Final = 20
"""Real images that a group needs."""


def calibrate(learnt: Sequence[Trial], held_out: Sequence[Trial], *, version: str, network_sha256: str) -> Calibration:
    """A calibration from trials of `trials.SIZES` on the train split and on the calibrate split, real and fake.

    Raises ValueError where a group of real images is too small to say anything.
    """
    numbers = np.stack([trial.evidence.numbers for trial in learnt if trial.family is None])
    middle = tuple(float(value) for value in np.median(numbers, axis=0))
    spread = tuple(float(value) for value in 1.4826 * np.median(np.abs(numbers - np.asarray(middle)), axis=0) + 1e-3)
    rows = terms(np.stack([trial.evidence.numbers for trial in learnt]), middle, spread)
    texture_weights = tuple(float(value) for value in _logistic(rows, _labels(learnt), _balance(learnt)))
    parts = np.stack([_parts(trial, middle, spread, texture_weights) for trial in held_out])
    weights = _logistic(parts, _labels(held_out), _balance(held_out), least=(0.0, 0.0, 0.0, -np.inf))
    groups = []
    sources = sorted({trial.source for trial in held_out if trial.family is None})
    for source in sources:
        for _, size in SIZES:
            reals, known = (_reals(trials, source, size) for trials in (held_out, learnt))
            if min(len(reals), len(known)) < _FEWEST:
                raise ValueError(f"{len(reals)} held-out and {len(known)} other real images of {source} are {size}: too few")
            table = np.stack([_parts(trial, middle, spread, texture_weights) for trial in reals])
            centre, inverse = _model(np.stack([trial.evidence.numbers for trial in known]))
            groups.append(
                Group(
                    source=source,
                    size=size,
                    traces=_sorted(table[:, 0]),
                    region=_sorted(table[:, 1]),
                    textures=_sorted(table[:, 2]),
                    combined=_sorted(table @ weights),
                    distances=_sorted(np.array([distance(trial.evidence.numbers, centre, inverse) for trial in reals])),
                    middle=centre,
                    inverse=inverse,
                )
            )
    traces, region, textures, constant = (float(value) for value in weights)
    return Calibration(
        version=version,
        network_sha256=network_sha256,
        middle=middle,
        spread=spread,
        texture_weights=texture_weights,
        weights=(traces, region, textures, constant),
        groups=tuple(groups),
    )


def _reals(trials: Sequence[Trial], source: str, size: str) -> list[Trial]:
    return [trial for trial in trials if (trial.family, trial.source, trial.evidence.size) == (None, source, size)]


def _parts(
    trial: Trial, middle: tuple[float, ...], spread: tuple[float, ...], texture_weights: tuple[float, ...]
) -> NDArray[np.float64]:
    """(4,): traces, region, textures, 1."""
    evidence = trial.evidence
    textures = float(terms(evidence.numbers, middle, spread) @ np.asarray(texture_weights))
    return np.array([evidence.traces, evidence.region, textures, 1.0])


def _labels(trials: Sequence[Trial]) -> NDArray[np.float64]:
    return np.array([float(trial.family is not None) for trial in trials])


def _balance(trials: Sequence[Trial]) -> NDArray[np.float64]:
    """(N,) weights: real and fake count alike in all, and so does each kind of fake, each generator of a kind."""
    names = [(trial.family or "", trial.generator or trial.source) for trial in trials]
    families = {family: {name for kind, name in names if kind == family} for family, _ in names}
    fakes = len(families) - 1
    counts = {name: names.count(name) for name in set(names)}
    return np.array(
        [0.5 / (1 if not family else fakes) / len(families[family]) / counts[family, name] for family, name in names]
    )


def _logistic(
    rows: NDArray[np.float64], labels: NDArray[np.float64], balance: NDArray[np.float64], least: tuple[float, ...] | None = None
) -> NDArray[np.float64]:
    """(columns,) weights of a logistic regression, none below `least`; the last column is the constant."""
    free = np.ones(rows.shape[1])
    free[-1] = 0

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        odds = rows @ weights
        costs = np.logaddexp(0, odds) - labels * odds
        slope = rows.T @ (balance * (1 / (1 + np.exp(-np.clip(odds, -500, 500))) - labels))
        return float(balance @ costs + _RIDGE / 2 * (free * weights**2).sum()), slope + _RIDGE * free * weights

    bounds = None if least is None else [(low, None) for low in least]
    found = optimize.minimize(loss, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds)
    weights: NDArray[np.float64] = found.x
    return weights


def _model(numbers: NDArray[np.float32]) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
    """The middle of a group's statistics, and the inverse of their covariance, drawn a tenth to its diagonal."""
    centre = np.median(numbers, axis=0)
    covariance = np.cov(numbers.astype(np.float64), rowvar=False)
    drawn = 0.9 * covariance + 0.1 * np.diag(np.diag(covariance)) + 1e-4 * np.eye(len(centre))
    inverse = np.linalg.inv(drawn)
    return tuple(float(value) for value in centre), tuple(tuple(float(value) for value in row) for row in inverse)


def _sorted(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in np.sort(values))
