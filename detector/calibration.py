"""From evidence to a word: what real radiographs and known fakes gave, and the thresholds that follow from it.

Every number is compared with the same number of held-out real radiographs of the same size, each source group apart, and the
group in which it is least odd counts: an image is odd only if it is odd for all. p-values are conformal (Vovk 2005): the share
of real images, with the image itself, that are at least as odd; so at most a share `ALARM` of exchangeable real images is
called synthetic, whatever the network does.

The one-class model is two-sided: the distance of the statistics from the middle of a group, in units of the group's spread,
whichever way they differ.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from detector.evidence import Evidence
from detector.statistics import NAMES

ALARM: Final = 0.01
"""The share of real images that may be called LIKELY_SYNTHETIC."""
CALM: Final = 0.05
"""An image that less than this share of real images exceeds isn't called NO_SIGN_OF_SYNTHESIS."""
STRANGE: Final = 0.01
"""Below this one-class p-value an image is unlike every group of real images, and thresholds from these say nothing of it."""


def upper_bound(alarms: int, images: int, confidence: float = 0.95) -> float:
    """The highest rate that so few alarms among so many images leave possible (Clopper and Pearson 1934, one-sided)."""
    return 1.0 if alarms >= images else float(stats.beta.ppf(confidence, alarms + 1, images - alarms))


@dataclass(frozen=True)
class Group:
    """Real images of one source at one size. Each list is sorted: what they scored. middle, inverse: of their statistics."""

    source: str
    size: str
    traces: tuple[float, ...]
    region: tuple[float, ...]
    textures: tuple[float, ...]
    combined: tuple[float, ...]
    distances: tuple[float, ...]
    middle: tuple[float, ...]
    inverse: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Calibration:
    """texture_weights: of the standardised statistics and their squares (constant last); middle, spread: that standardise them.
    weights: of traces, region and textures in the combined score (constant last), whose logistic is the probability."""

    version: str
    network_sha256: str
    middle: tuple[float, ...]
    spread: tuple[float, ...]
    texture_weights: tuple[float, ...]
    weights: tuple[float, float, float, float]
    groups: tuple[Group, ...]

    def textures(self, numbers: NDArray[np.float32]) -> float:
        """The linear score of the statistics, positive where they are as in fakes."""
        return float(terms(numbers, self.middle, self.spread) @ np.asarray(self.texture_weights))

    def combined(self, evidence: Evidence) -> float:
        """The log odds of being synthetic, where both are equally common."""
        parts = (evidence.traces, evidence.region, self.textures(evidence.numbers), 1.0)
        return float(np.dot(parts, self.weights))

    def p_value(self, part: str, value: float, size: str) -> float:
        """How odd a value is among real images of that size, in the group where it is least odd."""
        return max(conformal(getattr(group, part), value) for group in self.groups if group.size == size)

    def strangeness(self, evidence: Evidence) -> float:
        """The one-class p-value: small if the statistics are unlike those of each group, whichever way."""
        return max(
            conformal(group.distances, distance(evidence.numbers, group.middle, group.inverse))
            for group in self.groups
            if group.size == evidence.size
        )

    def save(self, file: Path) -> None:
        """As JSON, the same text for the same calibration."""
        file.write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")

    @classmethod
    def load(cls, file: Path) -> Calibration:
        """Raises OSError, or ValueError if it is no calibration."""
        try:
            given: dict[str, Any] = json.loads(file.read_text())
            groups = tuple(Group(**{name: _frozen(value) for name, value in group.items()}) for group in given.pop("groups"))
            found = cls(**{name: _frozen(value) for name, value in given.items()}, groups=groups)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file.name} is no calibration of this detector") from error
        if len(found.middle) != len(NAMES):
            raise ValueError(f"{file.name} is of {len(found.middle)} statistics, not of {len(NAMES)}")
        return found


def _frozen(value: Any) -> Any:
    return tuple(_frozen(one) for one in value) if isinstance(value, list) else value


def conformal(real: tuple[float, ...], value: float) -> float:
    """The share of sorted real values, with this one, that are at least as high."""
    return (len(real) - int(np.searchsorted(real, value, side="left")) + 1) / (len(real) + 1)


def terms(numbers: NDArray[np.floating], middle: tuple[float, ...], spread: tuple[float, ...]) -> NDArray[np.float64]:
    """(..., 2 len(NAMES) + 1): statistics in units of their spread, cut at 4, their squares, and 1."""
    scaled = np.clip((np.asarray(numbers, np.float64) - middle) / spread, -4, 4)
    return np.concatenate([scaled, scaled**2 - 1, np.ones((*scaled.shape[:-1], 1))], axis=-1)


def distance(numbers: NDArray[np.floating], middle: tuple[float, ...], inverse: tuple[tuple[float, ...], ...]) -> float:
    """Mahalanobis's, squared."""
    apart = np.asarray(numbers, np.float64) - middle
    return float(apart @ np.asarray(inverse) @ apart)
