"""Spectral and noise statistics of a view: what up-sampling, denoising and re-encoding leave, as numbers with a meaning each.

All are taken of the residual (what a small blur takes away), scaled by its local strength, so that anatomy counts little.

- `lattice2`, `lattice4`, `lattice8`, `lattice16`: the residual is folded at that period, and how far the means of the phases
  lie apart is compared with chance, as a logarithm; a fold of half the period, and what goes by rows or columns alone, is taken
  away first. Decoders that up-sample leave such lattices (Odena 2016; Zhang 2019, arXiv 1907.06515). Folding adds up over the
  whole view: a lattice far below the noise is seen, and one of 8 survives JPEG, whose own blocks go by rows and columns.
- `strength4`: the same at a period of 4 for how strong the residual is: noise that a decoder shaped.
- `blocks`: how much the spectrum stands out on the axes at a period of 8: where JPEG leaves its blocks.
- `peak`: the highest point of the spectrum off the axes against the median around it: any lattice, as after scaling.
- `slope`, `curve`: the fall of the radial spectrum in its upper half, and its bend there (Durall 2020, arXiv 2003.01826).
- `shot`: how the strength of the residual goes with the signal (rank correlation over blocks): quantum noise follows it,
  decoders often do not.
- `kurtosis`: of the scaled residual, logarithm: made texture has rarer or more frequent extremes than noise.
- `gaps`: the share of grey levels within the middle of the range that no pixel has: windowing and 8-bit data in more bits.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

PERIODS: Final = (2, 4, 8, 16)
NAMES: Final = (
    *(f"lattice{period}" for period in PERIODS),
    *("strength4", "blocks", "peak", "slope", "curve", "shot", "kurtosis", "gaps"),
)
SMALLEST: Final = 96
"""Pixels a side that a view needs."""
_BLOCK: Final = 192
"""Pixels a side of the blocks whose spectra are averaged, in views that have them; else 96. Multiples of all periods."""
_AROUND: Final = 9
_BLUR: Final = 1.1


def statistics(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(len(NAMES),) float32 of a view (h, w) uint8 with at least 96 pixels a side; ValueError for a smaller one."""
    if min(pixels.shape) < SMALLEST:
        raise ValueError(f"a view of {pixels.shape}: {SMALLEST} pixels a side are needed")
    values = pixels.astype(np.float32)
    plain = values - ndimage.gaussian_filter(values, _BLUR)
    strength = ndimage.uniform_filter(np.abs(plain), 15) + 0.25
    scaled = np.clip(plain / strength, -4, 4)
    power = _power(scaled)
    around = ndimage.median_filter(power, _AROUND, mode="wrap")
    ratio = np.log((power + 1e-9) / (around + 1e-9))
    found = [
        *(lattice(scaled, period) for period in PERIODS),
        lattice(np.minimum(np.abs(plain) / strength, 4), 4),
        _blocks(ratio),
        _peak(ratio),
        *_radial(power),
        _shot(values, plain),
        float(np.log(np.mean(scaled**4) / (np.mean(scaled**2) ** 2 + 1e-12) + 1e-6)),
        _gaps(pixels),
    ]
    return np.asarray(found, np.float32)


def lattice(values: NDArray[np.float32], period: int) -> float:
    """How far the phases of a period lie apart: the logarithm of their variance over that of chance, near 0 without one."""
    height, width = (side // period * period for side in values.shape)
    inside = values[:height, :width].astype(np.float64)
    means = inside.reshape(height // period, period, width // period, period).mean((0, 2))
    means = means - means.mean(0, keepdims=True) - means.mean(1, keepdims=True) + means.mean()
    half = period // 2
    if half > 1:
        means = means - np.tile(means.reshape(2, half, 2, half).mean((0, 2)), (2, 2))
    degrees = (period - 1) ** 2 - (half - 1) ** 2
    cells = (height // period) * (width // period)
    chance = float(inside.var()) / cells * degrees
    return float(np.log((float((means**2).sum()) + 1e-9) / (chance + 1e-9)))


def _power(scaled: NDArray[np.float32]) -> NDArray[np.float64]:
    """(side, side): the mean power spectrum of blocks that overlap by half, each under a Hann window."""
    side = _BLOCK if min(scaled.shape) >= _BLOCK else SMALLEST
    window = np.hanning(side + 1)[:side].astype(np.float32)
    window = window[:, None] * window
    total, count = np.zeros((side, side)), 0
    for top in range(0, scaled.shape[0] - side + 1, side // 2):
        for left in range(0, scaled.shape[1] - side + 1, side // 2):
            total += np.abs(np.fft.fft2(scaled[top : top + side, left : left + side] * window)) ** 2
            count += 1
    return total / count


def _blocks(ratio: NDArray[np.float64]) -> float:
    odd = np.arange(1, 8, 2) * (len(ratio) // 8)
    return float(np.mean([ratio[0, odd], ratio[odd, 0]]))


def _peak(ratio: NDArray[np.float64]) -> float:
    side = len(ratio)
    distance = np.minimum(np.arange(side), side - np.arange(side))
    off_axes = (distance[:, None] > side // 24) & (distance > side // 24)
    return float(ratio[off_axes].max())


def _radial(power: NDArray[np.float64]) -> tuple[float, float]:
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(len(power)), np.fft.fftfreq(len(power))))
    edges = np.linspace(0.15, 0.5, 9)
    rings = [power[(frequency >= low) & (frequency < high)] for low, high in pairwise(edges)]
    levels = np.log([np.median(ring) + 1e-12 for ring in rings])
    place = np.linspace(-1, 1, len(levels))
    curve, slope, _ = np.polyfit(place, levels, 2)
    return float(slope), float(curve)


def _shot(values: NDArray[np.float32], plain: NDArray[np.float32]) -> float:
    side = 16
    height, width = (length // side * side for length in values.shape)
    blocks = (height // side, side, width // side, side)
    means = values[:height, :width].reshape(blocks).mean((1, 3)).ravel()
    noise = np.median(np.abs(plain[:height, :width]).reshape(blocks).transpose(0, 2, 1, 3).reshape(len(means), -1), 1)
    inside = (means > 8) & (means < 247)
    if inside.sum() < 12 or np.ptp(noise[inside]) == 0:
        return 0.0
    return float(stats.spearmanr(means[inside], noise[inside]).statistic)


def _gaps(pixels: NDArray[np.uint8]) -> float:
    low, high = np.percentile(pixels, [5, 95]).astype(int)
    if high - low < 8:
        return 0.0
    return float(np.mean(np.bincount(pixels.ravel(), minlength=256)[low : high + 1] == 0))
