"""What each part of the detector measures on one image, before anything is compared with real radiographs.

- `traces`: the network's mean logit; of a large image the higher one of its tiles' mean and the reduced whole.
- `region`: how far the highest place of 40 x 40 pixels lies above the middle of its view: a part that differs from the rest.
- `statistics`: `detector.statistics`, the mean over views.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from detector.preprocess import View, interior, views
from detector.statistics import statistics

Logits = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""(h, w) uint8 to the network's dense logits (h / 8, w / 8), rounded up."""
STRIDE: Final = 8
"""Pixels of a view a logit."""
_PLACE: Final = 5
"""Logits a side that a place has: 40 pixels."""
_EDGE: Final = 1
"""Logits at a view's edge that see mirrored pixels."""
SIZES: Final = ((190, "small"), (380, "medium"), (10**9, "large"))
"""Below which short side of the interior an image has which size; each is compared with real images of its size alone."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """size: small, medium or large. numbers: (len(statistics.NAMES),) float32. maps: the logits of each view."""

    size: str
    traces: float
    region: float
    numbers: NDArray[np.float32]
    views: tuple[View, ...]
    maps: tuple[NDArray[np.float32], ...]


def size_of(image: NDArray[np.uint8]) -> str:
    """The size that an image (H, W) is compared in."""
    short = min(part.stop - part.start for part in interior(image))
    return next(name for bound, name in SIZES if short < bound)


def measured(image: NDArray[np.uint8], logits: Logits) -> Evidence | None:
    """The evidence of a grey image (H, W) uint8; None where its interior is too small to be looked at."""
    seen = views(image)
    if not seen:
        return None
    maps = [logits(np.ascontiguousarray(view.pixels)) for view in seen]
    inner = [one[_EDGE:-_EDGE, _EDGE:-_EDGE] for one in maps]
    reduced = [float(one.mean()) for one, view in zip(inner, seen, strict=True) if view.scale != 1]
    whole = [float(one.mean()) for one, view in zip(inner, seen, strict=True) if view.scale == 1]
    return Evidence(
        size=size_of(image),
        traces=max(*reduced, float(np.mean(whole))) if reduced else float(np.mean(whole)),
        region=max(_stands_out(one) for one in inner),
        numbers=np.mean([statistics(view.pixels) for view in seen], axis=0),
        views=tuple(seen),
        maps=tuple(maps),
    )


def _stands_out(logits: NDArray[np.float32]) -> float:
    places = ndimage.uniform_filter(logits, _PLACE, mode="nearest")
    return float(places.max() - np.median(places))


def heatmap(evidence: Evidence, shape: tuple[int, int]) -> NDArray[np.float32]:
    """(H, W) float32 in 0..1 at the image's size: its logits as probabilities, the highest of the views at a pixel."""
    heat = np.zeros(shape, np.float32)
    for view, logits in zip(evidence.views, evidence.maps, strict=True):
        height, width = (round(side * view.scale) for side in view.pixels.shape)
        height, width = min(height, shape[0] - view.top), min(width, shape[1] - view.left)
        calm = ndimage.uniform_filter(logits, 3, mode="nearest")
        rows, columns = (
            np.clip((np.arange(side) + 0.5) / (STRIDE * view.scale) - 0.5, 0, count - 1)
            for side, count in zip((height, width), logits.shape, strict=True)
        )
        fine = ndimage.map_coordinates(calm, np.meshgrid(rows, columns, indexing="ij"), order=1)
        part = heat[view.top : view.top + height, view.left : view.left + width]
        np.maximum(part, 1 / (1 + np.exp(-np.clip(fine, -30, 30))), out=part)
    return heat
