"""The figures that a detector is judged by. Scores are higher for what looks synthetic; labels are True for fakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Scores = NDArray[np.floating[Any]]
Labels = NDArray[np.bool_]

BINS: Final = 10


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def auc(scores: Scores, labels: Labels) -> float:
    """The chance that a fake scores higher than a real image, ties for a half (Mann and Whitney); nan without either kind."""
    fakes, reals = int(labels.sum()), int((~labels).sum())
    if not fakes or not reals:
        return float("nan")
    ranks = stats.rankdata(scores)
    return float((ranks[labels].sum() - fakes * (fakes + 1) / 2) / (fakes * reals))


def hit_rate(scores: Scores, labels: Labels, false_positive_rate: float) -> float:
    """The share of fakes above the threshold that at most this share of the real images here exceed (strictly)."""
    reals = np.sort(scores[~labels])[::-1]
    threshold = reals[int(np.floor(false_positive_rate * len(reals)))]
    return float((scores[labels] > threshold).mean())


def calibration_error(probabilities: Scores, labels: Labels) -> float:
    """The expected calibration error: over ten equal bins, how far the mean probability is from the share of fakes."""
    place = np.minimum((np.asarray(probabilities) * BINS).astype(int), BINS - 1)
    apart = 0.0
    for number in range(BINS):
        inside = place == number
        if inside.any():
            apart += inside.mean() * abs(float(probabilities[inside].mean()) - float(labels[inside].mean()))
    return float(apart)


def risk_at(coverage: float, probabilities: Scores, labels: Labels) -> float:
    """The share of wrong answers among the so many images that the detector is surest of."""
    sure = np.argsort(-np.abs(np.asarray(probabilities) - 0.5), kind="stable")[: max(1, round(coverage * len(labels)))]
    return float(((probabilities[sure] > 0.5) != labels[sure]).mean())


def iou(found: NDArray[np.bool_], mask: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks of a shape; nan where both are empty."""
    union = int((found | mask).sum())
    return int((found & mask).sum()) / union if union else float("nan")


def rate(hits: int, of: int) -> Interval:
    """A share with its exact 95 % interval (Clopper and Pearson 1934)."""
    if not of:
        return Interval(float("nan"), 0.0, 1.0)
    low = 0.0 if hits == 0 else float(stats.beta.ppf(0.025, hits, of - hits + 1))
    high = 1.0 if hits == of else float(stats.beta.ppf(0.975, hits + 1, of - hits))
    return Interval(hits / of, low, high)


def bootstrapped(
    figure: Callable[[Scores, Labels], float],
    scores: Scores,
    labels: Labels,
    patients: Sequence[str],
    *,
    rounds: int = 500,
    seed: int = 1,
) -> Interval:
    """A figure with the 2.5th and 97.5th percentile over draws of patients with replacement: all images of one go together."""
    order: dict[str, list[int]] = {}
    for number, patient in enumerate(patients):
        order.setdefault(patient, []).append(number)
    groups = [np.asarray(members) for members in order.values()]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(rounds):
        rows = np.concatenate([groups[place] for place in rng.integers(len(groups), size=len(groups))])
        value = figure(scores[rows], labels[rows])
        if np.isfinite(value):
            drawn.append(value)
    low, high = np.percentile(drawn, [2.5, 97.5]) if drawn else (float("nan"), float("nan"))
    return Interval(figure(scores, labels), float(low), float(high))
