"""Fitting the scope: real chest radiographs, changed as users change them, against counterexamples. A minute or two."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.counterexamples import KINDS, Grey, Random, part, texture
from detector.scope import LENGTH, Scope, described, negative

VIEWS: Final = 10
"""Changed views of each radiograph that is fitted to."""
PARTS: Final = 8
MADE: Final = 150
"""Counterexamples of each maker; of the random anatomies seven times as many."""
REFUSED: Final = 0.005
"""The share of held-out chest radiographs that may be refused for themselves."""
LET_IN: Final = 0.01
"""The share of new counterexamples that may be let in: where both can't be, radiographs are refused."""
_SHORT: Final = 256
_COMPONENTS: Final = 150
_PENALTY: Final = 20.0


def fit(
    radiographs: Sequence[Grey],
    held_out: Sequence[Grey],
    *,
    seed: int = 1,
    without: Collection[str] = (),
    views: int = VIEWS,
    made: int = MADE,
    progress: Callable[[str], None] = lambda _: None,
) -> Scope:
    """The scope of some real chest radiographs (H, W) uint8, with a threshold that nearly all of `held_out` pass, as they are
    and changed. Repeatable: one seed, one scope. `without`: families of counterexamples to leave out (keys of KINDS).
    """
    if not radiographs or not held_out:
        raise ValueError("the scope needs radiographs to fit, and others to hold out")
    rng = np.random.default_rng(seed)
    inside, outside = [], []
    for number, whole in enumerate(radiographs):
        small = _small(whole)
        inside += [described(viewed(bent(small, rng) if view % 2 else small, rng)) for view in range(views)]
        outside += [described(viewed(part(small, rng), rng)) for _ in range(min(PARTS, views))]
        if number % 50 == 0:
            progress(f"scope: {number} of {len(radiographs)} radiographs described")
    outside += [described(viewed(picture, rng)) for picture in _counterexamples(rng, made, without, progress)]
    weights, bias = _separated(np.stack(inside), np.stack(outside))
    unfinished = Scope(weights, bias, 0.0, np.zeros(0, np.float32))
    smalls = [_small(whole) for whole in held_out]
    scores = np.sort([unfinished.score(picture) for small in smalls for picture in (small, viewed(small, rng))])
    others = np.sort([unfinished.score(picture) for picture in _counterexamples(rng, -(-made // 3), without, progress)])
    threshold = max(float(np.quantile(scores, REFUSED, method="lower")), float(np.quantile(others, 1 - LET_IN)))
    progress(f"scope: threshold {threshold:.2f}, median of {len(held_out)} held-out radiographs {np.median(scores):.2f}")
    return Scope(weights, bias, threshold, scores.astype(np.float32))


def _counterexamples(rng: Random, made: int, without: Collection[str], progress: Callable[[str], None]) -> Iterator[Grey]:
    for family, makers in KINDS.items():
        if family in without:
            continue
        for name, make in makers.items():
            for _ in range(7 * made if name == "anatomy" else made):
                yield make(rng)
        progress(f"scope: counterexamples of family {family}")


def viewed(radiograph: Grey, rng: Random) -> Grey:
    """The same radiograph as somebody may have it: mirrored, cut to four fifths, turned up to 8 degrees, in another window and
    gamma, 112 to 256 pixels high."""
    picture = Image.fromarray(radiograph)
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    share = np.sqrt(rng.uniform(0.8, 1))
    wide, high = (max(int(side * share * rng.uniform(0.97, 1)), 1) for side in picture.size)
    left, top = int(rng.integers(picture.width - wide + 1)), int(rng.integers(picture.height - high + 1))
    border = int(radiograph[:4].mean())
    picture = picture.crop((left, top, left + wide, top + high))
    picture = picture.rotate(rng.uniform(-8, 8), Image.Resampling.BILINEAR, fillcolor=border)
    low, high_level = np.percentile(np.asarray(picture), [rng.uniform(0, 8), rng.uniform(92, 100)])
    grey = np.clip((np.asarray(picture, np.float64) - low) / max(float(high_level - low), 12), 0, 1)
    grey = np.rint(255 * grey ** np.exp(rng.uniform(-0.5, 0.5))).astype(np.uint8)
    scale = int(rng.choice([112, 160, _SHORT])) / min(wide, high)
    return np.asarray(Image.fromarray(grey).resize((round(wide * scale), round(high * scale)), Image.Resampling.BILINEAR))


def bent(radiograph: Grey, rng: Random) -> Grey:
    """Other chests than those at hand, and worse pictures of them: gently warped, perhaps blurred, grained or unevenly lit."""
    height, width = radiograph.shape
    rows, columns = np.mgrid[0:height, 0:width]
    reach = min(height, width) * 0.04
    bends = [_wave(rng, 4, (height, width)) * rng.uniform(0, reach) for _ in range(2)]
    warped = _sampled(radiograph, rows + bends[0], columns + bends[1])
    way = rng.random()
    if way < 0.25:
        shrunk = max(int(min(height, width) / rng.uniform(1.5, 8)), 24)
        small = Image.fromarray(warped.astype(np.float32)).resize((shrunk * width // height + 1, shrunk), Image.Resampling.BOX)
        warped = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    elif way < 0.5:
        warped = warped + rng.normal(size=warped.shape) * rng.uniform(2, 20)
    if rng.random() < 0.4:
        warped = warped + _wave(rng, 3, (height, width)) * rng.uniform(3, 12)
    if rng.random() < 0.3:
        warped = warped + texture(rng, rng.uniform(2, 7), (height, width)) * rng.uniform(2, 7)
    return np.rint(np.clip(warped, 0, 255)).astype(np.uint8)


def _wave(rng: Random, knots: int, shape: tuple[int, int]) -> NDArray[np.float64]:
    """A smooth surface through knots x knots random heights."""
    heights = Image.fromarray(rng.normal(size=(knots, knots)).astype(np.float32))
    return np.asarray(heights.resize(shape[::-1], Image.Resampling.BICUBIC), np.float64)


def _sampled(plane: Grey, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values between the pixels, by two linear steps; beyond the border those of the border."""
    rows, columns = np.clip(rows, 0, plane.shape[0] - 1), np.clip(columns, 0, plane.shape[1] - 1)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    bottom, right = np.minimum(top + 1, plane.shape[0] - 1), np.minimum(left + 1, plane.shape[1] - 1)
    down, across = rows - top, columns - left
    upper = plane[top, left] * (1 - across) + plane[top, right] * across
    lower = plane[bottom, left] * (1 - across) + plane[bottom, right] * across
    return np.asarray(upper * (1 - down) + lower * down)


def _small(whole: Grey) -> Grey:
    scale = _SHORT / min(whole.shape)
    size = (round(whole.shape[1] * scale), round(whole.shape[0] * scale))
    return np.asarray(Image.fromarray(whole).resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR))


def _separated(inside: NDArray[np.float32], outside: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Weights and bias of a logistic regression on the principal components, with a penalty; by Newton's method.

    Chest radiographs count as they are, counterexamples as they are and inverted, for both are asked at use.
    """
    everything = np.concatenate([inside, outside]).astype(np.float64)
    mean = inside.mean(axis=0, dtype=np.float64)
    _, deviations, axes = np.linalg.svd(everything - mean, full_matrices=False)
    axes, deviations = axes[:_COMPONENTS], deviations[:_COMPONENTS] / np.sqrt(len(everything))
    # Halfway to whitening: small components help, and are noise as well.
    to_components = axes.T * (2 / np.sqrt(np.maximum(deviations * deviations[0], 1e-12)))
    cases = np.concatenate([inside, outside, negative(outside)]).astype(np.float64)
    cases = np.column_stack([(cases - mean) @ to_components, np.ones(len(cases))])
    answers = np.arange(len(cases)) < len(inside)
    penalty = np.diag([*[_PENALTY] * to_components.shape[1], 1e-9])
    found = np.zeros(cases.shape[1])
    for _ in range(100):
        likely = 1 / (1 + np.exp(-np.clip(cases @ found, -30, 30)))
        slope = cases.T @ (likely - answers) + penalty @ found
        curve = (cases * (likely * (1 - likely))[:, None]).T @ cases + penalty
        step = np.linalg.solve(curve, slope)
        found -= step
        if np.abs(step).max() < 1e-8:
            break
    weights = to_components @ found[:-1]
    if weights.shape != (LENGTH,):
        raise ValueError(f"{weights.shape[0]} weights where a description has {LENGTH}")
    return weights.astype(np.float32), float(found[-1] - mean @ weights)
