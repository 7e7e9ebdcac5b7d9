"""Radiographs that were changed in one place, as CT-GAN does it (arXiv 1901.03597): a lesion put in or taken out, its texture
made by a generator, its borders blended.

The content of the place is changed first: a nodule is added; or what is there gives way to the part of the same image that fits
the surroundings best, or to one of another patient's; or nothing changes. Then a square around it goes through a re-maker, so
that the texture is the generator's, which may be given the image's grain again. Then the place is laid over the original with a
soft border, or by its gradients (Poisson image editing, doi 10.1145/882262.882269). Outside the place no pixel is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal, sparse
from scipy.sparse import linalg

from detector.augment import residual, to_grey

Grey = NDArray[np.uint8]
Values = NDArray[np.float32]
Mask = NDArray[np.bool_]
Kind = Literal["injected", "removed", "spliced", "retouched"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
DIAMETERS: Final = (0.05, 0.23)
"""Of the place, as shares of the image's short side: 26 to 118 pixels of 512, more small than large."""
BORDERS: Final = (2.0, 10.0)
"""Pixels over which the changed place fades into the original."""
_SHARES: Final = (0.4, 0.35, 0.15, 0.1)
"""How often each of KINDS."""
_CHANGED: Final = 0.2
"""The weight from which on a pixel counts as changed."""
_AROUND: Final = 32
"""Pixels around the place that the re-maker sees."""
_MULTIPLE: Final = 16
_RING: Final = 8
"""Pixels around the place by which what fits is found."""
_TRIES: Final = 8
"""How many places (and other images) are tried until what replaces the content fits."""
_FITS: Final = 0.08
"""The misfit below which nobody sees it."""
_BODY: Final = (25, 250)
"""Between the black around a body and what is burnt out."""


class NowhereToTamper(ValueError):
    """The image has no place with anatomy that is large enough."""


def tamper(
    image: Grey,
    rng: np.random.Generator,
    *,
    remaker: Callable[[Grey], Grey],
    others: Sequence[Grey] = (),
    kind: Kind | None = None,
) -> tuple[Grey, Mask]:
    """The changed image (H, W) and the mask of what was changed: where the blend weighs more than a fifth.

    remaker: (h, w) uint8 to the same shape, given crops whose sides are multiples of 16 where the image has that room. others:
    other radiographs, without which nothing is spliced. kind: drawn if it isn't given. Raises NowhereToTamper,
    and ValueError if the re-maker changes the shape or there is nothing to splice from.
    """
    if kind == "spliced" and not others:
        raise ValueError("no other radiograph to splice from was given")
    if kind is None:
        shares = np.array([share if one != "spliced" or others else 0.0 for one, share in zip(KINDS, _SHARES, strict=True)])
        kind = KINDS[int(rng.choice(len(KINDS), p=shares / shares.sum()))]
    found = [_content(image, kind, others, rng)]
    while found[-1].misfit > _FITS and len(found) < _TRIES:
        found.append(_content(image, kind, others, rng))
    chosen = min(found, key=lambda one: one.misfit)
    rows, columns, place = chosen.rows, chosen.columns, chosen.place
    original = image[rows, columns].astype(np.float32)
    made = remaker(to_grey(chosen.values)).astype(np.float32)
    if made.shape != original.shape:
        raise ValueError(f"the re-maker made {made.shape} of {original.shape}")
    if rng.random() < 0.5:
        made += float(rng.uniform(0.3, 1.0)) * _missing_grain(chosen.values, made, place, rng)
    weight = _weight(place, float(rng.uniform(*BORDERS)))
    # A re-maker may be a little brighter or darker than its original: at the border nobody should see it.
    off = ndimage.gaussian_filter(original - made, 2.0)
    if rng.random() < 0.5:
        made += _membrane(off, ndimage.binary_erosion(place, iterations=2))
    else:
        made += float(np.mean(off[place & (weight < 0.5)]))
    changed = image.copy()
    changed[rows, columns] = to_grey(weight * made + (1 - weight) * original)
    mask = np.zeros(image.shape, np.bool_)
    mask[rows, columns] = weight > _CHANGED
    return changed, mask


@dataclass(frozen=True, eq=False)
class _Content:
    """New content of a place, before it is re-made. rows, columns: the crop; place: in the crop; values: the crop with the new
    content; misfit: how much it differs around the place from what was there, as a share of what is to be seen there."""

    rows: slice
    columns: slice
    place: Mask
    values: Values
    misfit: float = 0.0


def _content(image: Grey, kind: Kind, others: Sequence[Grey], rng: np.random.Generator) -> _Content:
    low, high = DIAMETERS
    shape = _blob(round((low + (high - low) * float(rng.beta(1.0, 1.5))) * min(image.shape)), rng)
    top, left = _place(image, shape, rng, dark=kind == "injected" and rng.random() < 0.75)
    rows, columns = (
        _around(start, side, length) for start, side, length in zip((top, left), shape.shape, image.shape, strict=True)
    )
    original = image[rows, columns].astype(np.float32)
    place = np.zeros(original.shape, np.bool_)
    place[top - rows.start :, left - columns.start :][: shape.shape[0], : shape.shape[1]] = shape
    content = _Content(rows, columns, place, original)
    if kind == "injected":
        return replace(content, values=original + _nodule(original, place, rng))
    if kind == "removed":
        return _replaced(content, image, rng, own=True)
    if kind == "spliced":
        return _replaced(content, others[int(rng.integers(len(others)))], rng, own=False)
    return content


def _blob(diameter: int, rng: np.random.Generator) -> Mask:
    """An ellipse, or a smooth closed shape, about as large as the diameter; as large an array as it needs."""
    side = round(1.4 * diameter)
    down, right = np.mgrid[:side, :side] - (side - 1) / 2
    angle = np.arctan2(down, right)
    length, turn = float(rng.uniform(1.0, 1.35)), float(rng.uniform(0, np.pi))
    radius = 1 / np.hypot(np.cos(angle - turn) / length, np.sin(angle - turn) * length)
    if rng.random() < 0.6:
        for wave in (2, 3, 4, 5):
            radius += 0.2 / wave * rng.normal() * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    inside: Mask = np.hypot(down, right) < np.clip(radius, 0.6, 1.35) * diameter / 2
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    return inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _place(image: Grey, shape: Mask, rng: np.random.Generator, *, dark: bool) -> tuple[int, int]:
    """The corner of a place in the body: neither in the black around it nor in a burnt-out part. dark: rather in a lung."""
    room = [length - side for length, side in zip(image.shape, shape.shape, strict=True)]
    if min(room) < 2 * _RING:
        raise NowhereToTamper(f"an image of {image.shape} has no room for a place of {shape.shape}")
    found: list[tuple[float, int, int]] = []
    for _ in range(200):
        top, left = (min(max(_RING, round(float(rng.uniform(0.08, 0.92)) * free)), free - _RING) for free in room)
        part = image[top - _RING :, left - _RING :][: shape.shape[0] + 2 * _RING, : shape.shape[1] + 2 * _RING]
        if np.percentile(part, 4) > _BODY[0] and np.percentile(part, 96) < _BODY[1] and part.std() > 2:
            found.append((float(part.mean()), top, left))
            if len(found) == (6 if dark else 1):
                break
    if not found:
        raise NowhereToTamper("no place of the image has anatomy in it")
    return min(found)[1:]


def _around(start: int, side: int, length: int) -> slice:
    """The place and what is around it, a multiple of 16 pixels where there is room."""
    wanted = min(-(-(side + 2 * _AROUND) // _MULTIPLE) * _MULTIPLE, length // _MULTIPLE * _MULTIPLE)
    begin = min(max(0, start + side // 2 - wanted // 2), length - wanted)
    return slice(begin, begin + wanted)


def _weight(place: Mask, border: float) -> Values:
    """0 outside the place, 1 where it is `border` pixels deep, or half as deep as it is anywhere."""
    depth = ndimage.distance_transform_edt(place)
    share = np.clip(depth / min(border, float(depth.max()) / 2), 0, 1)
    weight: Values = (share * share * (3 - 2 * share)).astype(np.float32)
    return weight


def _nodule(around: Values, place: Mask, rng: np.random.Generator) -> Values:
    """What a lesion adds: about as much as a ball of soft tissue does, round, lobed or with spicules; less where ribs and the
    heart have taken the ray already, and nothing at the border of the place."""
    depth = ndimage.distance_transform_edt(place)
    rows, columns = np.nonzero(depth > 0.6 * depth.max())
    centre = int(rng.integers(len(rows)))
    down, right = (np.arange(side, dtype=np.float64) for side in place.shape)
    down, right = down[:, None] - rows[centre], right[None] - columns[centre]
    distance, angle = np.hypot(down, right), np.arctan2(down, right)
    radius = float(depth[rows[centre], columns[centre]] * rng.uniform(0.6, 0.95))
    lobes = 1 + sum(0.12 * rng.normal() * np.cos(wave * angle + rng.uniform(0, 2 * np.pi)) for wave in (1, 2, 3, 4))
    inside = distance / (radius * np.clip(lobes, 0.6, 1.2))
    ball = np.sqrt(np.clip(1 - inside**2, 0, 1))
    if rng.random() < 0.4:
        for _ in range(int(rng.integers(6, 16))):
            ray = angle - rng.uniform(-np.pi, np.pi)
            line = np.exp(-((distance * np.sin(ray) / rng.uniform(0.8, 1.6)) ** 2)) * (np.cos(ray) > 0)
            ball = ball + rng.uniform(0.1, 0.35) * line * np.clip(1.5 - inside, 0, 1) * np.clip(inside, 0, 1)
    rough = ndimage.gaussian_filter(rng.normal(0, 1, place.shape), float(rng.uniform(2.0, 5.0)))
    ball = ball * (1 + float(rng.uniform(0.05, 0.25)) * rough / (rough.std() + 1e-6))
    ball = ndimage.gaussian_filter(ball, max(1.2, float(rng.uniform(0.06, 0.18)) * radius))
    seen = np.clip((262 - around) / (262 - float(np.percentile(around, 5))), 0, 1)
    low, high = np.percentile(around, (5, 95))
    strength = float(np.clip(rng.uniform(0.15, 0.5) * (high - low), 6, 45))
    raised: Values = (strength * ball * seen * np.clip(depth / 3, 0, 1)).astype(np.float32)
    return raised


def _replaced(content: _Content, image: Grey, rng: np.random.Generator, *, own: bool) -> _Content:
    """With other content in the place: from where in an image the surroundings fit best, with the border's brightness. own:
    whether that is the image that the crop is from."""
    place, around = content.place, content.values
    box = ndimage.find_objects(ndimage.binary_dilation(place, iterations=_RING).astype(np.int8))[0]
    hole, template = place[box], around[box]
    ring = ndimage.binary_dilation(hole, iterations=_RING) & ~hole
    corner = (content.rows.start + box[0].start, content.columns.start + box[1].start) if own else None
    fitting, misfit = _fitting(image, template, hole, ring, corner)
    if not own:
        fitting = fitting * np.float32(np.clip(template[ring].std() / (fitting[ring].std() + 1e-6), 0.6, 1.6))
    if own and misfit < _FITS and rng.random() < 0.2:
        # Or the place is smooth but for its fine texture: what an in-painting network gives.
        inside = _membrane(template, hole) + fitting - ndimage.gaussian_filter(fitting, float(rng.uniform(2.0, 5.0)))
    else:
        inside = fitting + _membrane(ndimage.gaussian_filter(template - fitting, 1.0), hole)
    filled = around.copy()
    filled[box] = np.where(hole, inside, template)
    return replace(content, values=filled, misfit=misfit)


def _fitting(image: Grey, template: Values, hole: Mask, ring: Mask, corner: tuple[int, int] | None) -> tuple[Values, float]:
    """The part of an image whose pixels in the ring differ least from the template's but for their mean, and in whose hole is
    little to be seen; and the difference. Not the template itself, which is at `corner`. Raises NowhereToTamper."""
    room = [length - side for length, side in zip(image.shape, template.shape, strict=True)]
    if min(room) < 2:
        raise NowhereToTamper(f"an image of {image.shape} has no other part of {template.shape}")
    mean, spread = float(template[ring].mean()), float(template[ring].var()) + 20
    # At half the size, for speed: the border is made to fit anyway.
    values, wanted, outside, inside = (_halved(part) for part in (image - mean, template - mean, ring, hole))
    outside, inside = outside / outside.sum(), inside / inside.sum()

    def correlated(kernel: Values, pixels: Values) -> Values:
        return np.asarray(signal.fftconvolve(pixels, kernel[::-1, ::-1], "valid"))

    middle, level = correlated(inside, values), correlated(outside, values)
    seen = correlated(inside, values**2) - middle**2
    differs = correlated(outside, values**2) - 2 * correlated(wanted * outside, values) - level**2 + (outside * wanted**2).sum()
    cost = (differs + 0.3 * np.maximum(seen - spread, 0)) / spread
    cost[(middle + mean < _BODY[0] + 10) | (middle + mean > _BODY[1] - 10)] = np.inf
    if corner is not None:
        rows, columns = np.ogrid[: cost.shape[0], : cost.shape[1]]
        away = np.hypot((2 * rows - corner[0]) / hole.shape[0], (2 * columns - corner[1]) / hole.shape[1])
        # Far parts of a body are of other organs.
        cost[(away < 0.7) | (away > 3.0)] = np.inf
    best = np.unravel_index(int(cost.argmin()), cost.shape)
    if not np.isfinite(cost[best]):
        raise NowhereToTamper("no other part of the image is in the body")
    top, left = (min(2 * int(start), free) for start, free in zip(best, room, strict=True))
    return image[top : top + hole.shape[0], left : left + hole.shape[1]].astype(np.float32), float(cost[best])


def _halved(values: NDArray[Any]) -> Values:
    """The means of two by two pixels; of an odd side the last is left out."""
    height, width = (side // 2 for side in values.shape)
    halved: Values = values[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean((1, 3), dtype=np.float32)
    return halved


def _membrane(values: Values, place: Mask) -> Values:
    """The values, and in the place what solves Laplace's equation from its border on."""
    count = int(place.sum())
    number = np.full((place.shape[0] + 2, place.shape[1] + 2), -1)
    number[1:-1, 1:-1][place] = np.arange(count)
    known = np.pad(values, 1, mode="edge")
    rows, columns = (axis + 1 for axis in np.nonzero(place))
    right_side = np.zeros(count)
    entries = [(np.arange(count), np.arange(count), np.full(count, 4.0))]
    for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        beside = number[rows + down, columns + right]
        unknown = beside >= 0
        entries.append((np.flatnonzero(unknown), beside[unknown], np.full(int(unknown.sum()), -1.0)))
        right_side += np.where(unknown, 0.0, known[rows + down, columns + right])
    first, second, factors = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    solved = values.astype(np.float32, copy=True)
    solved[place] = linalg.spsolve(sparse.csc_matrix((factors, (first, second)), (count, count)), right_side)
    return solved


def _missing_grain(given: Values, made: Values, place: Mask, rng: np.random.Generator) -> Values:
    """Grain with the spectrum of what a re-maker was given, as strong as what it took from the place; none if it took none."""
    fine = residual(to_grey(given))
    before, after = float(fine[place].std()), float(residual(to_grey(made))[place].std())
    # What is turned by a half and moved has the same spectrum, and nothing of the anatomy in its place.
    grain = np.roll(fine[::-1, ::-1], tuple(rng.integers(0, side) for side in fine.shape), (0, 1))
    grain = np.clip(grain, -3 * before, 3 * before)
    return np.asarray(np.sqrt(max(0.0, before**2 - after**2)) * grain / (grain.std() + 1e-6), np.float32)
