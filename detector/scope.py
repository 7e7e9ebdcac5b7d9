"""Whether an image is one that the detector was calibrated for: a chest radiograph from the front, and nothing else.

Simple tests come first (size, blank, few grey levels, colour). Then a linear score tells chest radiographs from everything else
that `detector.counterexamples` makes, on two descriptions of the picture brought to 64 x 64: its ranks in 24 x 24 places (which
no window or gamma changes), and the directions of its edges in 8 x 8 places (which inversion doesn't change either). The score
is read for the picture and its negative, and the larger one counts; half of it is that of the best of some windows, for a
chest may lie off the middle or within a collimator's borders. The threshold comes from real chest radiographs that were held
out of the fit. A chest that is refused is an abstention; a hand that is let in gets an opinion that means nothing.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.assessment import Reason

WEIGHTS: Final = Path(__file__).with_name("weights") / "scope.npz"
SHORTEST_SIDE: Final = 96
LONGEST_SHAPE: Final = 2.5
"""The long side over the short one."""
FEWEST_LEVELS: Final = 24
COLOURED: Final = 0.02
"""The share of pixels whose channels may differ: a marker, not a photograph."""
PART: Final = "scope"
_ENOUGH: Final = 500
"""Rows and columns that tell whether an image is blank or coloured."""
_CANVAS, _PLACES, _CELLS, _DIRECTIONS = 64, 24, 8, 8
LENGTH: Final = _PLACES**2 + _DIRECTIONS * _CELLS**2
"""Of a description."""
_NAMES: Final = ("weights", "bias", "threshold", "held_out")
_RANKS: Final = slice(0, _PLACES**2)
_WINDOWS: Final = ((0.1, 0.1), (0.0, 0.1), (0.2, 0.1), (0.1, 0.0), (0.1, 0.2))
"""Where windows of four fifths of height and width begin (row, column)."""
_FLAT: Final = 0.02
"""Edges weaker than this (of the ranks' range of 2, per pixel) count little: in a flat place direction is noise."""


def _pooling(cells: int) -> NDArray[np.float32]:
    """(cells, _CANVAS): weights that average pixels into overlapping cells."""
    place = (np.arange(_CANVAS) + 0.5) / _CANVAS * cells - 0.5
    weights = np.clip(1 - np.abs(place[None] - np.arange(cells)[:, None]), 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


_TO_PLACES, _TO_CELLS = _pooling(_PLACES), _pooling(_CELLS)


def described(plane: NDArray[Any]) -> NDArray[np.float32]:
    """(LENGTH,) float32 of a grey picture (H, W), without its empty borders, squeezed to a square. Of the negative picture: see
    `negative`."""
    trimmed = Image.fromarray(_trimmed(np.asarray(plane, np.float32)))
    ranks = _ranks(np.asarray(trimmed.resize((_CANVAS, _CANVAS), Image.Resampling.HAMMING)))
    down, right = np.gradient(ranks)
    strength = np.hypot(down, right)
    direction = np.mod(np.arctan2(down, right), np.pi) / np.pi * _DIRECTIONS
    edges = np.empty((_DIRECTIONS, _CELLS, _CELLS), np.float32)
    for number in range(_DIRECTIONS):
        apart = np.abs(direction - number)
        apart = np.minimum(apart, _DIRECTIONS - apart)
        edges[number] = _TO_CELLS @ (strength * np.clip(1 - apart, 0, 1)) @ _TO_CELLS.T
    edges = np.sqrt(edges / np.sqrt((edges**2).sum(axis=0) + _FLAT**2))
    # The ranks are many and lie close together: a quarter makes both halves weigh alike.
    return np.concatenate([(0.25 * (_TO_PLACES @ ranks @ _TO_PLACES.T)).ravel(), edges.ravel()]).astype(np.float32)


def negative(descriptions: NDArray[np.float32]) -> NDArray[np.float32]:
    """The descriptions (..., LENGTH) of the same images with dark and bright exchanged."""
    turned = descriptions.copy()
    turned[..., _RANKS] *= -1
    return turned


def small(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """A grey picture (h, w) of an image (H, W) or (H, W, 3) of any depth: as many pixels averaged as leave 256 on the short
    side."""
    step = max(1, min(pixels.shape[:2]) // 256)
    height, width = (side // step * step for side in pixels.shape[:2])
    plane = pixels[:height, :width]
    plane = plane.mean(axis=2, dtype=np.float32) if plane.ndim == 3 else plane.astype(np.float32)
    return np.asarray(plane.reshape(height // step, step, width // step, step).mean(axis=(1, 3)))


def _trimmed(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without the rows and columns at the borders in which nothing changes, unless little else is there."""
    low, high = np.percentile(plane, [1, 99])
    little = 0.04 * (high - low) + 1e-6
    found = []
    for axis in (1, 0):
        low_part, high_part = np.percentile(plane, [2, 98], axis=axis)
        lively = np.flatnonzero(high_part - low_part > little)
        if len(lively) < 0.3 * plane.shape[1 - axis]:
            return plane
        found.append(slice(int(lively[0]), int(lively[-1]) + 1))
    return np.ascontiguousarray(plane[found[0], found[1]])


def _ranks(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same picture with its values spread evenly over -1..1."""
    ranks = np.empty(plane.size, np.float32)
    ranks[np.argsort(plane, axis=None, kind="stable")] = np.linspace(-1, 1, plane.size, dtype=np.float32)
    return ranks.reshape(plane.shape)


def obvious(pixels: NDArray[Any]) -> str | None:
    """Why an image (H, W) or (H, W, 3) is out of scope whatever it shows, or None."""
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3) or not pixels.size:
        return f"an array of shape {pixels.shape} is no picture"
    height, width = pixels.shape[:2]
    if min(height, width) < SHORTEST_SIDE:
        return f"{width} x {height} pixels are too few: the short side needs {SHORTEST_SIDE}"
    if max(height, width) > LONGEST_SHAPE * min(height, width):
        return f"{width} x {height} pixels: chest radiographs are not so long"
    some = pixels[:: max(1, height // _ENOUGH), :: max(1, width // _ENOUGH)]
    if pixels.ndim == 3:
        full = max(float(some.max()), 1e-9)
        coloured = float(((some.max(axis=2) - some.min(axis=2)) > 0.1 * full).mean())
        if coloured > COLOURED:
            return f"{coloured:.0%} of the pixels are coloured: radiographs are grey"
        pixels, some = pixels[..., 1], some[..., 1]
    levels = len(np.unique(some))
    levels = levels if levels >= FEWEST_LEVELS else len(np.unique(pixels))
    if levels < FEWEST_LEVELS:
        return "a blank image" if levels == 1 else f"{levels} grey levels: a drawing, a text or a nearly blank image"
    low, high = np.percentile(some, [2, 98])
    if low == high:
        return "a nearly blank image"
    return None


@dataclass(frozen=True, eq=False)
class Scope:
    """What chest radiographs look like, as fitted.

    weights: (LENGTH,) and bias: of the linear score. threshold: the lowest score in scope. held_out: the sorted scores of the
    real chest radiographs that gave the threshold.
    """

    weights: NDArray[np.float32]
    bias: float
    threshold: float
    held_out: NDArray[np.float32]

    def scores(self, descriptions: NDArray[np.float32]) -> NDArray[np.float32]:
        """(...,) of descriptions (..., LENGTH): of each picture or its negative, whichever is higher."""
        either = np.maximum(descriptions @ self.weights, negative(descriptions) @ self.weights)
        return np.asarray(either + self.bias, np.float32)

    def score(self, pixels: NDArray[Any]) -> float:
        """Of an image (H, W) or (H, W, 3) that is not `obvious`: how much it looks like a chest radiograph from the front."""
        plane = small(pixels)
        height, width = plane.shape
        parts = [described(plane)]
        for top, left in _WINDOWS:
            row, column = int(top * height), int(left * width)
            parts.append(described(plane[row : row + int(0.8 * height), column : column + int(0.8 * width)]))
        scores = self.scores(np.stack(parts))
        return float(scores[0] + scores.max()) / 2

    def refusal(self, pixels: NDArray[Any]) -> Reason | None:
        """Why an image (H, W) or (H, W, 3) is out of scope; None where it is in scope."""
        said = obvious(pixels)
        if said is not None:
            return Reason(PART, None, said)
        score = self.score(pixels)
        if score >= self.threshold:
            return None
        below = int(np.searchsorted(self.held_out, score, side="right"))
        share = (below + 1) / (len(self.held_out) + 1)
        return Reason(
            PART, share, f"not like a chest radiograph from the front (score {score:.1f}, {self.threshold:.1f} is needed)"
        )

    @classmethod
    def load(cls, file: Path = WEIGHTS) -> Scope:
        """The scope of a file that `save` wrote. Raises ValueError for another one, OSError where there is none."""
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as kept:
            if set(kept) != set(_NAMES) or kept["weights"].shape != (LENGTH,):
                raise ValueError(f"{file.name} has no scope of {LENGTH} weights")
            return cls(kept["weights"], float(kept["bias"]), float(kept["threshold"]), kept["held_out"])

    def save(self, file: Path = WEIGHTS) -> str:
        """Writes the scope, the same bytes for the same scope; its SHA-256 in hex."""
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for name in _NAMES:
                array = io.BytesIO()
                np.save(array, np.asarray(getattr(self, name)), allow_pickle=False)
                # The date is always the same one, unlike that of `np.savez`.
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), array.getvalue())
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.getvalue())
        return hashlib.sha256(content.getvalue()).hexdigest()
