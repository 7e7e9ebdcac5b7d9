"""What the network learns from: crops of real radiographs and of fakes, in pairs that differ in the maker's traces alone.

A fake that was derived from a real image is paired with the same place of it; one made from noise with a real image of its
source, brought to its size. Both go the same way from maker to reader (`augment.route`). Before that, each on its own may
have been compressed, smoothed or given grain, and many pairs are made equally sharp: none of that may tell them apart. Fakes
differ in kind more than in number: each kind is drawn as often, and each generator of a kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.augment import as_sharp, grainier, recoded, route, scaled, sharpness, smoother, to_grey
from detector.evidence import STRIDE
from detector.fakes.made import Fake
from detector.splits import Split, radiographs

Grey = NDArray[np.uint8]
Item = TypeVar("Item")
Kind = TypeVar("Kind", bound=np.generic)
Simulation = Callable[[Grey, np.random.Generator], Grey]

CROP: Final = 128
BEFORE: Final = (150, 300)
"""Pixels a side of a crop before its way, which may halve it."""
NATIVE: Final = 640
SIMULATED: Final = 0.2
"""The share of pairs whose fake is simulated on the spot."""
WEAKENED: Final = 0.4
"""The share of aligned fakes that are mixed with their originals: better generators leave less of a trace."""
MATCHED: Final = 0.6
"""The share of pairs that are made equally sharp: sharpness must say nothing."""
TAMPERED: Final = 0.7
"""The share of crops of tampered images that have the tampered place in them."""


@dataclass(frozen=True, eq=False)
class Batch:
    """images: (B, 1, CROP, CROP) uint8. targets: (B, 1, CROP / 8, CROP / 8) float32, the share of made pixels at each logit.
    whole: (B,) bool, whether all of the crop has one maker."""

    images: NDArray[np.uint8]
    targets: NDArray[np.float32]
    whole: NDArray[np.bool_]


def real_images(
    data: Path, splits: Sequence[Split], source: str | None = None, *, side: int = NATIVE
) -> dict[str, tuple[str, Grey]]:
    """Patient -> source and pixels of the shared radiographs; of those in full size the middle `side` pixels, at most."""
    found = {}
    for radiograph in radiographs(splits, source=source):
        pixels = radiograph.pixels(data)
        top, left = (max(0, length - side) // 2 for length in pixels.shape)
        found[radiograph.patient] = (radiograph.source, pixels[top : top + side, left : left + side])
    return found


class Material:
    """Pairs, drawn by seed and step: the same batch for the same numbers."""

    def __init__(self, reals: Mapping[str, Grey], fakes: Sequence[Fake], simulations: Sequence[Simulation] = ()) -> None:
        """reals: patient -> (H, W) uint8. Fakes of other parents are left out. Raises ValueError if nothing is left."""
        self._reals, self._simulations = reals, tuple(simulations)
        self._patients = sorted(reals)
        self._families: dict[str, dict[str, list[Fake]]] = {}
        for fake in fakes:
            if fake.parent is None or fake.parent in reals:
                self._families.setdefault(fake.family, {}).setdefault(fake.generator, []).append(fake)
        if not reals or not (self._families or simulations):
            raise ValueError("there is nothing to learn from: neither real images nor fakes of them may be missing")

    def batch(self, seed: int, step: int, pairs: int) -> Batch:
        """`pairs` real crops, each before the fake it is paired with."""
        rng = np.random.default_rng((seed, step))
        images, targets, whole = [], [], []
        for _ in range(pairs):
            real, fake, mask = self._pair(rng)
            other = self._reals[_any(self._patients, rng)]
            way, place, turns = route(rng), rng.random(2), int(rng.integers(4))
            lived = [_lived(image, other, rng) for image in (real, fake)]
            if rng.random() < MATCHED and min(other.shape) >= max(real.shape):
                # One of them is brought to the sharpness of the other.
                which = int(rng.integers(2))
                lived[which] = as_sharp(lived[which], sharpness(lived[1 - which]), _window_of(other, lived[which].shape, rng))
            for image, made in zip(lived, (None, mask), strict=True):
                seen = way(image)
                crop = np.rot90(_cut(seen, place), turns)
                images.append(crop)
                if made is None:
                    targets.append(np.zeros((CROP // STRIDE,) * 2, np.float32))
                else:
                    share = Image.fromarray(made.astype(np.uint8) * 255).resize(seen.shape[::-1], Image.Resampling.NEAREST)
                    cells = np.rot90(_cut(np.asarray(share), place), turns).reshape(CROP // STRIDE, STRIDE, -1, STRIDE)
                    targets.append((cells.mean((1, 3)) / 255).astype(np.float32))
                whole.append(made is None or bool(made.all()))
        return Batch(np.stack(images)[:, None], np.stack(targets)[:, None], np.asarray(whole))

    def _pair(self, rng: np.random.Generator) -> tuple[Grey, Grey, NDArray[np.bool_]]:
        """A real crop, the fake one, and which of its pixels were made."""
        if self._simulations and (not self._families or rng.random() < SIMULATED):
            real = _window(self._reals[_any(self._patients, rng)], None, rng)[0]
            made = _any(self._simulations, rng)(real, rng)
            return real, made, np.ones(made.shape, np.bool_)
        generators = self._families[_any(sorted(self._families), rng)]
        fake = _any(generators[_any(sorted(generators), rng)], rng)
        if fake.parent is None:
            real = self._reals[_any(self._patients, rng)]
            short = min(fake.pixels.shape)
            beside = scaled(real, short / min(real.shape)) if min(real.shape) > short else real
            parts = [_window(image, None, rng)[0] for image in (beside, fake.pixels)]
            side = min(*parts[0].shape, *parts[1].shape)
            return parts[0][:side, :side], parts[1][:side, :side], np.ones((side, side), np.bool_)
        real = self._reals[fake.parent]
        centre = None
        if fake.mask is not None and rng.random() < TAMPERED:
            rows, columns = np.nonzero(fake.mask)
            chosen = int(rng.integers(len(rows)))
            centre = (int(rows[chosen]), int(columns[chosen]))
        fake_crop, rows_columns = _window(fake.pixels, centre, rng)
        mask = np.ones(fake_crop.shape, np.bool_) if fake.mask is None else fake.mask[rows_columns]
        real_crop = real[rows_columns]
        if rng.random() < WEAKENED:
            share = float(rng.uniform(0.2, 0.9))
            fake_crop = to_grey(share * fake_crop.astype(np.float32) + (1 - share) * real_crop)
        return real_crop, fake_crop, mask


def _any(items: Sequence[Item], rng: np.random.Generator) -> Item:
    return items[int(rng.integers(len(items)))]


def _window(image: Grey, centre: tuple[int, int] | None, rng: np.random.Generator) -> tuple[Grey, tuple[slice, slice]]:
    """A random square of the image, around `centre` if it is given, and where it is."""
    side = min(int(rng.integers(*BEFORE)), *image.shape)
    starts = []
    for axis, length in enumerate(image.shape):
        low, high = 0, length - side
        if centre is not None:
            low, high = max(0, centre[axis] - side + side // 4), min(high, centre[axis] - side // 4)
            low, high = min(low, length - side), max(low, high)
            high = min(high, length - side)
        starts.append(int(rng.integers(low, high + 1)) if high >= low else length - side)
    place = (slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side))
    return image[place], place


def _lived(image: Grey, other: Grey, rng: np.random.Generator) -> Grey:
    """The image after what may have happened to it alone: compressed, smoothed, or given the grain of another."""
    if rng.random() < 0.2:
        image = recoded(image, "JPEG", int(rng.integers(60, 96)))
    kind = rng.random()
    if kind < 0.15:
        return smoother(image, rng)
    if kind < 0.4 and min(other.shape) >= max(image.shape):
        return grainier(image, _window_of(other, image.shape, rng), rng)
    return image


def _window_of(image: Grey, shape: tuple[int, ...], rng: np.random.Generator) -> Grey:
    top, left = (int(rng.integers(length - side + 1)) for length, side in zip(image.shape, shape, strict=True))
    return image[top : top + shape[0], left : left + shape[1]]


def _cut(image: NDArray[Kind], place: NDArray[np.float64]) -> NDArray[Kind]:
    """(CROP, CROP) at `place`, 0..1 of the room there is; a smaller image is mirrored up."""
    padding = [(0, max(0, CROP - side)) for side in image.shape]
    if any(after for _, after in padding):
        image = np.pad(image, padding, mode="symmetric")
    top, left = (int(share * (side - CROP)) for share, side in zip(place, image.shape, strict=True))
    return image[top : top + CROP, left : left + CROP]
