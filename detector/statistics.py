"""Spectral and noise statistics of a view: what up-sampling, denoising and re-encoding leave, as numbers with a meaning each.

All are taken of the residual (what a small blur takes away), scaled by its local strength, so that anatomy counts little.

- `grid2`, `grid4`, `grid8`: how much the residual's spectrum stands out at the frequencies of a lattice of that period, off the
  axes, against the median around them, as a natural logarithm. Decoders that up-sample leave such lattices (Odena 2016; Zhang
  2019, arXiv 1907.06515).
- `blocks`: the same on the axes at a period of 8: where JPEG leaves its blocks.
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

NAMES: Final = ("grid2", "grid4", "grid8", "blocks", "peak", "slope", "curve", "shot", "kurtosis", "gaps")
BLOCK: Final = 96
"""Pixels a side of the blocks whose spectra are averaged; a multiple of the lattices' periods."""
_AROUND: Final = 7
_BLUR: Final = 1.2


def statistics(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(len(NAMES),) float32 of a view (h, w) uint8 with at least 96 pixels a side; ValueError for a smaller one."""
    if min(pixels.shape) < BLOCK:
        raise ValueError(f"a view of {pixels.shape}: {BLOCK} pixels a side are needed")
    values = pixels.astype(np.float32)
    plain = values - ndimage.gaussian_filter(values, _BLUR)
    strength = ndimage.uniform_filter(np.abs(plain), 15)
    scaled = np.clip(plain / (strength + 0.25), -6, 6)
    power = _power(scaled)
    ratio = np.log(power / (ndimage.median_filter(power, _AROUND, mode="wrap") + 1e-12) + 1e-6)
    found = [
        *(_grid(ratio, period) for period in (2, 4, 8)),
        _blocks(ratio),
        _peak(ratio),
        *_radial(power),
        _shot(values, plain),
        float(np.log(np.mean(scaled**4) / (np.mean(scaled**2) ** 2 + 1e-12) + 1e-6)),
        _gaps(pixels),
    ]
    return np.asarray(found, np.float32)


def _power(scaled: NDArray[np.float32]) -> NDArray[np.float64]:
    """(BLOCK, BLOCK): the mean power spectrum of blocks that overlap by half, each under a Hann window."""
    window = np.hanning(BLOCK + 1)[:BLOCK]
    window = window[:, None] * window
    total, count = np.zeros((BLOCK, BLOCK)), 0
    for top in range(0, scaled.shape[0] - BLOCK + 1, BLOCK // 2):
        for left in range(0, scaled.shape[1] - BLOCK + 1, BLOCK // 2):
            total += np.abs(np.fft.fft2(scaled[top : top + BLOCK, left : left + BLOCK] * window)) ** 2
            count += 1
    return total / count


def _grid(ratio: NDArray[np.float64], period: int) -> float:
    """The mean over the lattice's frequencies off the axes that no lattice of a smaller period has."""
    step = BLOCK // period
    places = [
        (row, column)
        for row in range(step, BLOCK, step)
        for column in range(step, BLOCK, step)
        if period == 2 or row % (2 * step) or column % (2 * step)
    ]
    return float(np.mean([ratio[place] for place in places]))


def _blocks(ratio: NDArray[np.float64]) -> float:
    odd = np.arange(1, 8, 2) * (BLOCK // 8)
    return float(np.mean([ratio[0, odd], ratio[odd, 0]]))


def _peak(ratio: NDArray[np.float64]) -> float:
    distance = np.minimum(np.arange(BLOCK), BLOCK - np.arange(BLOCK))
    off_axes = (distance[:, None] > 3) & (distance > 3)
    return float(ratio[off_axes].max())


def _radial(power: NDArray[np.float64]) -> tuple[float, float]:
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(BLOCK), np.fft.fftfreq(BLOCK)))
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
