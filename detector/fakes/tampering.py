"""Radiographs that were changed in one place, as CT-GAN does it (arXiv 1901.03597): a lesion put in or taken out, its texture
made by a generator, its borders blended.

The content of the place is changed first (a nodule is added, or what is there is smoothed away from its surroundings, or
nothing); then a square around it goes through a re-maker, so that the texture is the generator's; then the place is laid over
the original with a soft border.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Grey = NDArray[np.uint8]
Values = NDArray[np.float32]
Mask = NDArray[np.bool_]

DIAMETERS: Final = (0.06, 0.22)
"""Of the place, as shares of the image's short side: 31 to 113 pixels of 512."""
_AROUND: Final = 32
"""Pixels around the place that the re-maker sees."""
_MULTIPLE: Final = 16


class NowhereToTamper(ValueError):
    """The image has no place with anatomy that is large enough."""


def tamper(image: Grey, rng: np.random.Generator, *, remaker: Callable[[Grey], Grey]) -> tuple[Grey, Mask]:
    """The changed image (H, W) and the mask of what was changed: where the blend weighs more than a half.

    Raises NowhereToTamper.
    """
    shape = _blob(round(float(rng.uniform(*DIAMETERS)) * min(image.shape)), rng)
    top, left = _place(image, shape.shape, rng)
    whole = np.zeros(image.shape, np.float32)
    whole[top : top + shape.shape[0], left : left + shape.shape[1]] = shape
    rows, columns = (
        _around(start, side, length) for start, side, length in zip((top, left), shape.shape, image.shape, strict=True)
    )
    crop, place = image[rows, columns].astype(np.float32), whole[rows, columns]
    kind = rng.random()
    if kind < 0.4:
        crop = crop + _nodule(place, rng)
    elif kind < 0.8:
        crop = _filled(crop, place > 0.5)
    made = remaker(np.clip(np.round(crop), 0, 255).astype(np.uint8)).astype(np.float32)
    blend = ndimage.gaussian_filter(place, float(rng.uniform(1.0, 4.0)))
    # A re-maker may be a little brighter or darker than its original: at the border nobody should see it.
    ring = (blend > 0.05) & (blend < 0.4)
    if ring.any():
        made += float(np.mean(image[rows, columns][ring] - made[ring]))
    changed = image.copy()
    mixed = blend * made + (1 - blend) * image[rows, columns]
    changed[rows, columns] = np.clip(np.round(mixed), 0, 255)
    mask = np.zeros(image.shape, np.bool_)
    mask[rows, columns] = blend > 0.5
    return changed, mask


def _blob(diameter: int, rng: np.random.Generator) -> Values:
    """A smooth closed shape as 0 and 1, about as large as the diameter."""
    side = diameter + 8
    down, right = np.mgrid[:side, :side] - (side - 1) / 2
    angle = np.arctan2(down, right)
    radius = np.ones_like(angle)
    for wave in (2, 3, 4, 5):
        radius += 0.25 / wave * rng.normal() * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    inside: Values = (np.hypot(down, right) < np.clip(radius, 0.6, 1.15) * diameter / 2).astype(np.float32)
    return inside


def _place(image: Grey, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[int, int]:
    """The corner of a place in the body: neither in the black around it nor in a burnt-out part."""
    room = [length - side for length, side in zip(image.shape, shape, strict=True)]
    if min(room) < 2:
        raise NowhereToTamper(f"an image of {image.shape} has no room for a place of {shape}")
    for _ in range(200):
        top, left = (round(float(rng.uniform(0.08, 0.92)) * free) for free in room)
        part = image[top : top + shape[0], left : left + shape[1]]
        if np.percentile(part, 10) > 25 and np.percentile(part, 90) < 250 and part.std() > 2:
            return top, left
    raise NowhereToTamper("no place of the image has anatomy in it")


def _around(start: int, side: int, length: int) -> slice:
    """The place and what is around it, a multiple of 16 pixels where there is room."""
    wanted = min(-(-(side + 2 * _AROUND) // _MULTIPLE) * _MULTIPLE, length // _MULTIPLE * _MULTIPLE)
    begin = min(max(0, start + side // 2 - wanted // 2), length - wanted)
    return slice(begin, begin + wanted)


def _nodule(place: Values, rng: np.random.Generator) -> Values:
    """What a lesion adds: a soft hill, with spicules or without."""
    depth = ndimage.distance_transform_edt(place > 0.5)
    hill = np.clip(depth / (depth.max() + 1e-6), 0, 1) ** float(rng.uniform(0.4, 1.2))
    if rng.random() < 0.4:
        rough = ndimage.gaussian_filter(rng.normal(0, 1, place.shape), 2.5)
        hill = hill * (1 + 0.5 * rough / (rough.std() + 1e-6))
    raised: Values = (float(rng.uniform(10, 45)) * ndimage.gaussian_filter(hill, 1.5)).astype(np.float32)
    return raised


def _filled(crop: Values, place: Mask) -> Values:
    """The crop with the place filled smoothly from its border, by the mean of neighbours again and again, coarse to fine."""
    filled = crop.copy()
    filled[place] = crop[~place].mean()
    for sigma, turns in ((16, 6), (8, 6), (4, 8), (2, 12), (1, 20)):
        for _ in range(turns):
            filled[place] = ndimage.gaussian_filter(filled, sigma)[place]
    return filled
