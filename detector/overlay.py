"""Where the detector looked hard: an image beside itself with the heat map laid over it."""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LONGEST_SIDE: Final = 1024
"""Of each of the two pictures; larger images are reduced."""
_GAP: Final = 8
_STRENGTH: Final = 0.6
_STOPS: Final = np.array([[0, 0, 0], [255, 140, 0], [255, 0, 60]], np.float64)
"""The colour of 0, 0.5 and 1; how much of it is seen grows with the value as well."""


def overlay(pixels: NDArray[Any], heatmap: NDArray[np.float32], *, inverted: bool = False) -> bytes:
    """A PNG: left the image (H, W) or (H, W, 3), in a window from its 0.5th to its 99.5th percentile; right the same with
    `heatmap` (H, W) in 0..1 in colour. Raises ValueError when their sizes differ.
    """
    if heatmap.shape != pixels.shape[:2]:
        raise ValueError(f"a heat map of {heatmap.shape} for an image of {pixels.shape[:2]}")
    plane = (pixels.mean(axis=2) if pixels.ndim == 3 else pixels).astype(np.float64)
    low, high = np.percentile(plane, [0.5, 99.5])
    plane = np.clip((plane - low) / max(float(high - low), 1e-9), 0, 1)
    scale = min(1.0, LONGEST_SIDE / max(plane.shape))
    size = (max(round(plane.shape[1] * scale), 1), max(round(plane.shape[0] * scale), 1))
    grey = _resized(1 - plane if inverted else plane, size)
    heat = _resized(np.clip(np.nan_to_num(heatmap), 0, 1), size)[..., None]
    below = np.minimum(np.floor(2 * heat), 1)
    first, share = below.astype(int)[..., 0], 2 * heat - below
    colour = _STOPS[first] * (1 - share) + _STOPS[first + 1] * share
    left = np.repeat(255 * grey[..., None], 3, axis=2)
    right = left * (1 - _STRENGTH * heat) + colour * _STRENGTH * heat
    both = np.concatenate([left, np.full((size[1], _GAP, 3), 255.0), right], axis=1)
    file = io.BytesIO()
    Image.fromarray(np.rint(both).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _resized(plane: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float64]:
    picture = Image.fromarray(plane.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.clip(np.asarray(picture, np.float64), 0, 1)
