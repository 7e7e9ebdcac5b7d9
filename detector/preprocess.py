"""The one way from pixels to what the detector sees, for training and for use.

1. Grey: the mean of colour channels; an alpha channel is ignored.
2. Eight bits. What has more is windowed to the 0.5th and 99.5th percentile of its interior; eight bits stay as they are.
   MONOCHROME1 is inverted, so that air is dark.
3. The interior: rows and columns of one value at the border (padding, collimation) are cut, then three percent of each side.
4. Views. An image of at most `LONGEST` pixels on its short side is seen as it is; a larger one as tiles of `TILE` pixels at its
   own resolution, and whole, reduced to `SHORT` pixels on its short side.

Nothing else is taken from a file: no size, no format, no metadata.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SHORT = 512
TILE = 512
LONGEST = 768
TILES = 4
SMALLEST = 96
"""Pixels of the interior's short side, below which nothing is said."""
WINDOW = (0.5, 99.5)
MARGIN = 0.03


class NoPicture(ValueError):
    """The array is no picture of one frame: neither (H, W) nor (H, W, 1, 3 or 4), empty, or not of numbers."""


@dataclass(frozen=True, eq=False)
class View:
    """A part of an image. pixels: (h, w) uint8. top, left: where it begins, and scale: image pixels in one of its pixels."""

    pixels: NDArray[np.uint8]
    top: int
    left: int
    scale: float


def grey(pixels: NDArray[np.generic], *, inverted: bool = False, bits: int | None = None) -> NDArray[np.uint8]:
    """(H, W) uint8 of an image of any integer or float kind, (H, W) or (H, W, channels).

    bits: how many bits of an integer array mean something (BitsStored), None for all of its type; a uint8 array of 8 bits is
    taken as it is. inverted: MONOCHROME1. Raises NoPicture.
    """
    if pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4):
        channels = pixels[..., :3] if pixels.shape[2] == 4 else pixels
        # A grey picture that was stored in colour keeps its values exactly.
        same = all(np.array_equal(channels[..., 0], channels[..., number]) for number in range(1, channels.shape[2]))
        pixels = channels[..., 0] if same else channels.astype(np.float32).mean(2).astype(channels.dtype)
    if pixels.ndim != 2 or not pixels.size:
        raise NoPicture(f"an array of the shape {pixels.shape} is no picture of one frame")
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if not np.issubdtype(pixels.dtype, np.number) or np.issubdtype(pixels.dtype, np.complexfloating):
        raise NoPicture(f"values of the type {pixels.dtype} are no grey levels")
    has_eight = pixels.dtype == np.uint8 and bits in (None, 8)
    eight = np.asarray(pixels, np.uint8) if has_eight else _windowed(pixels)
    return np.uint8(255) - eight if inverted else eight


def _windowed(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    values = pixels.astype(np.float32)
    if not np.isfinite(values).all():
        raise NoPicture("it has values that are no numbers")
    low, high = np.percentile(values[interior(values)], WINDOW)
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    scaled: NDArray[np.uint8] = np.round(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return scaled


def interior(pixels: NDArray[np.generic]) -> tuple[slice, slice]:
    """Where an (H, W) image has content: without a border of one value, and without three percent of each side."""
    slices = []
    for axis in (0, 1):
        lines = pixels if axis == 0 else pixels.T
        varies = np.flatnonzero(lines.max(1) != lines.min(1))
        first, last = (int(varies[0]), int(varies[-1]) + 1) if len(varies) else (0, len(lines))
        margin = round((last - first) * MARGIN)
        slices.append(slice(first + margin, last - margin))
    return slices[0], slices[1]


def views(image: NDArray[np.uint8]) -> list[View]:
    """What the detector looks at, of an (H, W) uint8 image; none if its interior is smaller than `SMALLEST`."""
    rows, columns = interior(image)
    inner = image[rows, columns]
    short = min(inner.shape)
    if short < SMALLEST:
        return []
    if short <= LONGEST:
        return [View(inner, rows.start, columns.start, 1.0)]
    scale = short / SHORT
    found = [View(reduced(inner, SHORT), rows.start, columns.start, scale)]
    for top, left in _places(inner):
        tile = inner[top : top + TILE, left : left + TILE]
        found.append(View(tile, rows.start + top, columns.start + left, 1.0))
    return found


def reduced(image: NDArray[np.uint8], short: int) -> NDArray[np.uint8]:
    """The image with its short side brought to `short` pixels, by Lanczos."""
    scale = short / min(image.shape)
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _places(inner: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Corners of the tiles with the most structure, none over another."""
    tops, lefts = (np.arange(0, side - TILE + 1, TILE) + (side - TILE) % TILE // 2 for side in inner.shape)
    variances = {
        (int(top), int(left)): float(np.var(inner[top : top + TILE : 4, left : left + TILE : 4]))
        for top in tops
        for left in lefts
    }
    return sorted(variances, key=variances.__getitem__, reverse=True)[:TILES]
