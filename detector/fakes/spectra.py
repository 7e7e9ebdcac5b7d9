"""Generators' spectra without a generator: augmentation that leaves what up-sampling decoders leave, in many more ways than the
bank of trained decoders has.

`lattice` adds a pattern that repeats every 2, 4 or 8 pixels and is as strong as the texture it lies on. `resampled` takes the
fine texture from a reduced image that is brought back by a random kernel, as a transposed convolution does, and gives it grain
again. `flattened` changes how the spectrum falls in its upper half, either way. All take (H, W) uint8 and give the same shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from detector.augment import residual, to_grey

Grey = NDArray[np.uint8]
Values = NDArray[np.float32]


def lattice(image: Grey, rng: np.random.Generator) -> Grey:
    """With a random pattern of a period of 2, 4 or 8 pixels, times the local strength of the texture, added to it."""
    period = int(rng.choice((2, 4, 8)))
    pattern = rng.normal(0, 1, (period, period))
    pattern -= pattern.mean()
    pattern /= pattern.std() + 1e-9
    tiled = np.tile(pattern, [-(-side // period) for side in image.shape])[: image.shape[0], : image.shape[1]]
    fine = residual(image)
    strength = ndimage.uniform_filter(np.abs(fine), 9) + 0.15
    added = float(rng.uniform(0.15, 0.6)) * tiled * strength
    if rng.random() < 0.5:
        # Or the pattern is in how strong the texture is: as in the noise that a decoder shapes.
        added = float(rng.uniform(0.2, 0.7)) * tiled * fine
    return to_grey(image + added)


def resampled(image: Grey, rng: np.random.Generator) -> Grey:
    """What a reduction by 2 or 4 takes away, replaced by what a random kernel makes of the reduced image and of noise."""
    factor = int(rng.choice((2, 4)))
    height, width = (-(-side // factor) * factor for side in image.shape)
    values = np.pad(image.astype(np.float32), ((0, height - image.shape[0]), (0, width - image.shape[1])), mode="edge")
    small = values.reshape(height // factor, factor, width // factor, factor).mean((1, 3))
    fine = residual(image)
    noise = rng.normal(0, 1, small.shape).astype(np.float32)
    kernel = _kernel(factor, rng)
    made = _enlarged(small, factor, kernel)
    grain = _enlarged(noise, factor, _kernel(factor, rng, even=False))
    grain /= grain.std() + 1e-6
    grain = grain[: image.shape[0], : image.shape[1]]
    strength = ndimage.uniform_filter(np.abs(fine), 9)
    amount = float(rng.uniform(0.3, 1.6))
    return to_grey(made[: image.shape[0], : image.shape[1]] + amount * strength * grain)


def _kernel(factor: int, rng: np.random.Generator, *, even: bool = True) -> Values:
    """A bump of twice the factor, with ten percent of chance; even: each phase sums to nearly one, as in a trained decoder."""
    side = 2 * factor
    place = np.abs(np.arange(side) - (side - 1) / 2) / factor
    bump = np.clip(1 - place, 0, 1)
    kernel = bump[:, None] * bump * (1 + (0.1 if even else 0.6) * rng.normal(0, 1, (side, side)))
    if even:
        phases = kernel.reshape(2, factor, 2, factor).sum((0, 2), keepdims=True)
        kernel = kernel / np.broadcast_to(phases, (2, factor, 2, factor)).reshape(side, side) ** float(rng.uniform(0.97, 1.0))
    return np.asarray(kernel, np.float32)


def _enlarged(small: Values, factor: int, kernel: Values) -> Values:
    """A transposed convolution with a stride of `factor`, each value's bump over the middle of its block."""
    around = np.pad(small, 1, mode="edge")
    spread = np.zeros([side * factor for side in around.shape], np.float32)
    spread[::factor, ::factor] = around
    begin = factor + factor // 2
    made = signal.convolve2d(spread, kernel)[begin : begin + small.shape[0] * factor, begin : begin + small.shape[1] * factor]
    return np.asarray(made, np.float32)


def flattened(image: Grey, rng: np.random.Generator) -> Grey:
    """With the upper half of its spectrum raised or lowered, the more the higher: by a factor of up to 3 at its end."""
    values = np.fft.rfft2(image.astype(np.float32))
    frequency = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1]))
    begin = float(rng.uniform(0.15, 0.3))
    above = np.clip((frequency - begin) / (0.5 - begin), 0, 1)
    change = float(rng.uniform(0.4, 1.1)) * (1 if rng.random() < 0.5 else -1)
    found: Values = np.fft.irfft2(values * np.exp(change * above), image.shape).astype(np.float32)
    return to_grey(found)


SIMULATIONS: Final[tuple[Callable[[Grey, np.random.Generator], Grey], ...]] = (lattice, resampled)
"""Those that only a generator leaves. A flattened spectrum is what any denoiser or sharpener leaves, too: see `augment`."""
