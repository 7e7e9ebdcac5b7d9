"""Generators' spectra without a generator: augmentation that leaves what up-sampling decoders leave, in many more ways than the
bank of trained decoders has.

`lattice` adds a pattern that repeats every 2, 4 or 8 pixels and is as strong as the texture it lies on. `resampled` takes the
fine texture from a reduced image that is brought back by a random kernel, as a transposed convolution does, and from noise that
is enlarged by 2, 4 or 8 in steps of 2, as a decoder makes its texture. These are signs of a generator. `flattened` changes how
the spectrum falls in its upper half, either way; `grain` adds noise with a sensor's spectrum or a wrong one. These are no sign:
denoisers, sharpeners and detectors do the same to real images. All take (H, W) uint8 and give the same shape.
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
    """What a reduction by 2 or 4 takes away, replaced by what random kernels make of the reduced image and of noise."""
    factor = int(rng.choice((2, 2, 4)))
    height, width = (-(-side // factor) * factor for side in image.shape)
    values = np.pad(image.astype(np.float32), ((0, height - image.shape[0]), (0, width - image.shape[1])), mode="edge")
    small = values.reshape(height // factor, factor, width // factor, factor).mean((1, 3))
    made = _enlarged(small, factor, _kernel(factor, rng, uneven=0.1))[: image.shape[0], : image.shape[1]]
    strength = ndimage.uniform_filter(np.abs(residual(image)), 9)
    amount = float(rng.uniform(0.4, 1.5))
    return to_grey(made + amount * strength * _texture(image.shape, int(rng.choice((factor, 8))), rng))


def _texture(shape: tuple[int, ...], factor: int, rng: np.random.Generator) -> Values:
    """Noise that was enlarged by 2 again and again, cut off as a ReLU does, and given new noise; without what is coarser than
    some 10 pixels, and with a standard deviation of 1 in what is finer than some 5."""
    texture = rng.normal(0, 1, [-(-side // factor) for side in shape]).astype(np.float32)
    fresh = float(rng.uniform(0.0, 0.7))
    while factor > 1:
        texture = _enlarged(texture, 2, _kernel(2, rng, uneven=0.6))
        factor //= 2
        if factor > 1:
            texture = np.maximum(texture, 0.3 * texture) / (texture.std() + 1e-6)
            texture = texture - texture.mean() + fresh * rng.normal(0, 1, texture.shape).astype(np.float32)
    texture = texture[: shape[0], : shape[1]]
    texture = texture - ndimage.gaussian_filter(texture, 3.0)
    return np.asarray(texture / ((texture - ndimage.gaussian_filter(texture, 1.5)).std() + 1e-6), np.float32)


def _kernel(factor: int, rng: np.random.Generator, *, uneven: float) -> Values:
    """A bump of twice the factor or a box as wide as it, its values uneven by this share. If that is small, each phase sums to
    nearly one, as in a trained decoder."""
    place = np.abs(np.arange(2 * factor) - (2 * factor - 1) / 2) / factor
    profile = (place < 0.5).astype(np.float32) if rng.random() < 0.4 else np.clip(1 - place, 0, 1)
    kernel = profile[:, None] * profile * (1 + uneven * rng.normal(0, 1, (2 * factor, 2 * factor)))
    if uneven < 0.2:
        phases = kernel.reshape(2, factor, 2, factor).sum((0, 2), keepdims=True)
        kernel = kernel / np.broadcast_to(phases, (2, factor, 2, factor)).reshape(kernel.shape) ** float(rng.uniform(0.97, 1.0))
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


def grain(image: Grey, rng: np.random.Generator) -> Grey:
    """With noise added, about as strong as its own fine texture.

    In half of all cases that of its own sensor: the spectrum of its residual with other phases, as strong at each brightness as
    the residual is there. Otherwise white or blue noise, equally strong all over or growing with the root of the brightness.
    """
    fine = residual(image)
    fine = np.clip(fine, *np.percentile(fine, (1, 99)))
    noise = rng.normal(0, 1, image.shape).astype(np.float32)
    kind = rng.random()
    if kind < 0.5:
        spectrum = np.abs(np.fft.rfft2(fine)) * np.exp(1j * np.angle(np.fft.rfft2(noise)))
        noise = np.fft.irfft2(spectrum, image.shape).astype(np.float32)
        edges = np.quantile(image, np.linspace(0, 1, 9))
        levels = (edges[1:] + edges[:-1]) / 2
        bins = np.clip(np.searchsorted(edges, image) - 1, 0, 7)
        spreads = np.array([fine[bins == one].std() if (bins == one).any() else fine.std() for one in range(8)])
        strength = np.interp(image, levels, spreads)
    else:
        noise = noise - ndimage.gaussian_filter(noise, float(rng.uniform(0.6, 1.5))) if kind < 0.75 else noise
        signal_dependent = rng.random() < 0.5
        strength = (fine.std() + 0.3) * (np.sqrt(0.25 + image / 128.0) if signal_dependent else np.ones(image.shape))
    return to_grey(image + float(rng.uniform(0.4, 1.4)) * strength * noise / (noise.std() + 1e-6))


Simulation = Callable[[Grey, np.random.Generator], Grey]

SIMULATIONS: Final[tuple[Simulation, ...]] = (lattice, resampled)
"""Those that only a generator leaves: what they give may be called made."""
ALTERATIONS: Final[tuple[Simulation, ...]] = (flattened, grain)
"""Those that real images have, too: for either class, and never a reason to call an image made."""
