"""A fixed pattern in an image's noise: residuals, what is left of them when all that devices share is taken out, correlations.

`detector.fingerprint` says what for, and cites the sources.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage, stats

LARGEST: Final = 36_000_000
"""Pixels of an image, at most."""
_WHITE: Final = (0.8908, 0.2007)
"""Standard deviation of white noise on each scale of the wavelet (Starck and Murtagh 1998)."""
_WINDOWS: Final = (3, 5, 9)
_SPLINE: Final = np.array([1, 4, 6, 4, 1], np.float32) / 16
_AROUND: Final = 5
"""Pixels around a peak that count as part of it."""

Floats = NDArray[np.float32]


class Unfit(ValueError):
    """Images that no fingerprint can be made of, or a file that holds none; the message says what is wrong."""


class Exposure(NamedTuple):
    """One image's stored values (H, W) or (H, W, channels). inverted: small values are bright; lossy: it went through a lossy
    codec, as far as its file says."""

    pixels: NDArray[Any]
    inverted: bool = False
    lossy: bool = False


class Peak(NamedTuple):
    """The most telling place of a correlation. strength: minus the decimal logarithm of its chance among noise."""

    strength: float
    pce: float
    shift: tuple[int, int]


class Traces(NamedTuple):
    """What processing leaves in an image's noise. blocks: steps between columns and rows at the most frequent of eight places
    against the median one (JPEG); fine: energy of the finest noise against coarser, in octaves (scaling, smoothing)."""

    blocks: float
    fine: float


def signal_of(given: Exposure | NDArray[Any]) -> tuple[Floats, bool]:
    """(H, W) float32 from 0 with a median of about 1; 0 where pixels are at their highest value, and tell nothing. And whether
    the image went through a lossy codec."""
    exposure = given if isinstance(given, Exposure) else Exposure(given)
    pixels = exposure.pixels
    if pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4):
        pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3].astype(np.float32).mean(2)
    if pixels.ndim != 2 or not 0 < pixels.size <= LARGEST:
        shape = " x ".join(map(str, pixels.shape))
        raise Unfit(f"an array of {shape}: a picture of one frame of at most {LARGEST} pixels is needed")
    if not np.issubdtype(pixels.dtype, np.number) or np.issubdtype(pixels.dtype, np.complexfloating):
        raise Unfit(f"values of the type {pixels.dtype} are no grey levels")
    values = pixels.astype(np.float32)
    if not np.isfinite(values).all():
        raise Unfit("it has values that are no numbers")
    if exposure.inverted:
        values = values.max() - values
    values -= min(0.0, float(values.min()))
    top = float(values.max())
    if np.ptp(values) == 0:
        raise Unfit("an image of one grey level")
    exposed = values[(values > 0) & (values < top)]
    values[values == top] = 0
    return values / np.float32(np.median(exposed) if exposed.size else top), exposure.lossy


def residual(signal: Floats) -> Floats:
    """(H, W): an image's noise, as far as it can be told from what is in the picture."""
    coarse, noise, white = signal, np.zeros_like(signal), np.float32(np.inf)
    for scale, share in enumerate(_WHITE):
        kernel = np.zeros(4 * 2**scale + 1, np.float32)
        kernel[:: 2**scale] = _SPLINE
        smooth = ndimage.convolve1d(ndimage.convolve1d(coarse, kernel, 0, mode="mirror"), kernel, 1, mode="mirror")
        detail = coarse - smooth
        inside = np.abs(detail[signal > 0])
        usual = np.float32(np.median(inside) / 0.6745) ** 2 if inside.size else np.float32(0)
        white = min(white, usual / np.float32(share) ** 2)
        usual = white * np.float32(share) ** 2
        square = detail**2
        local = np.minimum.reduce([ndimage.uniform_filter(square, side, mode="mirror") for side in _WINDOWS])
        noise += detail * (usual / (np.maximum(local, usual) + np.float32(1e-12)))
        coarse = smooth
    return noise


def traces_of(noise: Floats) -> Traces:
    """Of an image's residual (H, W)."""
    ratios = []
    for lines in (noise, noise.T):
        steps = np.abs(np.diff(lines, axis=0)).mean(1)
        places = np.array([steps[place::8].mean() for place in range(8)])
        ratios.append(float(places.max() / max(float(np.median(places)), 1e-12)))
    power = np.abs(fft.rfft2(noise)) ** 2
    frequency = np.hypot(np.fft.fftfreq(noise.shape[0])[:, None], np.fft.rfftfreq(noise.shape[1]))
    fine, coarse = (power[(frequency > low) & (frequency < high)].mean() for low, high in ((0.35, 0.5), (0.1, 0.25)))
    return Traces(max(ratios), float(np.log2((fine + 1e-12) / (coarse + 1e-12))))


def flattened(pattern: Floats) -> Floats:
    """The same with a flat spectrum without lattices, without means of rows and columns, of standard deviation 1."""
    spectrum = fft.rfft2(pattern)
    spectrum[0], spectrum[:, 0] = 0, 0
    power = np.abs(spectrum) ** 2
    spectrum /= np.sqrt(ndimage.uniform_filter(power, 15, mode=("wrap", "nearest"))) + np.float32(1e-9)
    spectrum *= np.minimum(1, 3 / np.maximum(np.abs(spectrum), np.float32(1e-9)))
    flat = fft.irfft2(spectrum, pattern.shape)
    flat = np.clip(flat / max(float(flat.std()), 1e-12), -4, 4)
    return np.asarray(flat, np.float32)


def estimated(above: Floats, below: Floats) -> Floats:
    """The flattened pattern of sum(W I) over sum(I^2), both (H, W); where nothing was ever exposed it is 0."""
    return flattened(np.where(below > 0.01, above / np.maximum(below, np.float32(0.01)), np.float32(0)))


def reduced(pattern: Floats, shape: tuple[int, ...]) -> list[Floats]:
    """The pattern as it would be in an image of the whole sensor that was brought to a smaller size, lying or standing."""
    rows, columns = pattern.shape
    for height, width in (shape, shape[::-1]):
        if height < rows and abs(height * columns - width * rows) <= max(rows, columns):
            smaller = Image.fromarray(pattern).resize((width, height), Image.Resampling.LANCZOS)
            return [flattened(np.asarray(smaller))]
    return []


def peak_of(pattern: NDArray[Any], evidence: Floats, *, upright: bool = True) -> Peak:
    """Of the correlation of an image's evidence with a pattern at least as large. The place of an image that was neither turned
    nor moved has a quarter of the prior weight, whole or reduced; all others, in eight positions each, share the other half."""
    padded = np.zeros(pattern.shape, np.float32)
    padded[: evidence.shape[0], : evidence.shape[1]] = evidence
    product = fft.rfft2(pattern.astype(np.float32)) * np.conj(fft.rfft2(padded))
    surface = fft.irfft2(product, pattern.shape)
    rows, columns = (
        whole - part + 1 if part < whole else whole for whole, part in zip(pattern.shape, evidence.shape, strict=True)
    )
    places = surface[:rows, :columns]
    row, column = divmod(int(np.argmax(places)), columns)
    best = _judged(surface, row, column, np.log(2 * 2 * 8 * places.size))
    return max(best, _judged(surface, 0, 0, np.log(4))) if upright else best


def _judged(surface: Floats, row: int, column: int, log_places: float) -> Peak:
    """The peak at a place against the energy of the rest, and its strength among so many places."""
    peak = float(surface[row, column])
    height, width = surface.shape
    near = np.arange(-_AROUND, _AROUND + 1)
    around = np.ix_((row + near) % height, (column + near) % width)
    rest = float(np.sum(surface.astype(np.float64) ** 2) - np.sum(surface[around].astype(np.float64) ** 2))
    energy = rest / (surface.size - (2 * _AROUND + 1) ** 2)
    ratio = peak / max(energy, 1e-30) ** 0.5
    chance = min(0.0, float(stats.norm.logsf(ratio)) + log_places)
    shift = (row - height if row > height // 2 else row, column - width if column > width // 2 else column)
    return Peak(float(-chance / np.log(10)), float(np.sign(peak) * ratio**2), shift)
