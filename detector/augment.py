"""What happens to images between their maker and a reader, done to real and fake alike, so that none of it tells them apart.

A pair (a real crop and what a generator made of it) goes through the same steps with the same numbers: scaling, windowing,
blur or sharpening, noise, compression. Besides, either may be made smoother or grainier than life on its own: how much grain
an image has must say nothing.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Grey = NDArray[np.uint8]
Values = NDArray[np.float32]
Step = Callable[[Grey], Grey]

_FILTERS = (
    Image.Resampling.LANCZOS,
    Image.Resampling.BICUBIC,
    Image.Resampling.BILINEAR,
    Image.Resampling.BOX,
    Image.Resampling.HAMMING,
)
QUALITIES = (60, 95)


def to_grey(values: NDArray[np.floating]) -> Grey:
    """Rounded and cut to 0..255."""
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def recoded(image: Grey, kind: str, quality: int) -> Grey:
    """Through a lossy codec: kind JPEG, WEBP (quality 1..100), or JPEG2000 (quality: the signal-to-noise ratio in dB)."""
    held = io.BytesIO()
    picture = Image.fromarray(image)
    if kind == "JPEG2000":
        picture.save(held, "JPEG2000", quality_mode="dB", quality_layers=[quality], irreversible=True)
    else:
        picture.save(held, kind, quality=quality)
    return np.asarray(Image.open(held).convert("L"))


def scaled(image: Grey, factor: float, resampling: Image.Resampling = Image.Resampling.LANCZOS) -> Grey:
    """Both sides times `factor`."""
    height, width = (max(1, round(side * factor)) for side in image.shape)
    return np.asarray(Image.fromarray(image).resize((width, height), resampling))


def route(rng: np.random.Generator) -> Step:
    """One random way from maker to reader; the same for whatever image it is given."""
    steps: list[Step] = []
    if rng.random() < 0.6:
        factor, resampling = float(rng.uniform(0.45, 1.15)), _FILTERS[rng.integers(len(_FILTERS))]
        steps.append(lambda image: scaled(image, factor, resampling))
    if rng.random() < 0.4:
        gamma, gain, shift = float(rng.uniform(0.7, 1.4)), float(rng.uniform(0.7, 1.25)), float(rng.uniform(-0.1, 0.1))
        table = to_grey((np.linspace(0, 1, 256) ** gamma * gain + shift) * 255)
        steps.append(lambda image: table[image])
    if rng.random() < 0.1:
        steps.append(lambda image: np.uint8(255) - image)
    softness = rng.random()
    if softness < 0.12:
        sigma = float(rng.uniform(0.3, 0.9))
        steps.append(lambda image: to_grey(ndimage.gaussian_filter(image.astype(np.float32), sigma)))
    elif softness < 0.24:
        amount, sigma = float(rng.uniform(0.2, 1.0)), float(rng.uniform(0.6, 1.5))
        steps.append(lambda image: _sharpened(image, amount, sigma))
    if rng.random() < 0.15:
        seed, strength = int(rng.integers(2**31)), float(rng.uniform(0.5, 4.0))
        steps.append(lambda image: to_grey(image + np.random.default_rng(seed).normal(0, strength, image.shape)))
    if rng.random() < 0.5:
        codec = ("JPEG", "JPEG", "JPEG", "JPEG2000", "WEBP")[rng.integers(5)]
        quality = int(rng.integers(38, 50)) if codec == "JPEG2000" else int(rng.integers(QUALITIES[0], QUALITIES[1] + 1))
        steps.append(lambda image: recoded(image, codec, quality))
    return lambda image: _through(image, steps)


def _through(image: Grey, steps: Sequence[Step]) -> Grey:
    for step in steps:
        image = step(image)
    return image


def _sharpened(image: Grey, amount: float, sigma: float) -> Grey:
    values = image.astype(np.float32)
    return to_grey(values + amount * (values - ndimage.gaussian_filter(values, sigma)))


def residual(image: Grey) -> Values:
    """What a Gaussian of 1.5 pixels takes away."""
    values = image.astype(np.float32)
    taken: Values = values - ndimage.gaussian_filter(values, 1.5)
    return taken


def grainier(image: Grey, other: Grey, rng: np.random.Generator) -> Grey:
    """With grain that has a real image's spectrum (the residual of `other`, of the same shape), or a wrong one."""
    strength = float(rng.uniform(0.3, 1.5))
    kind = rng.integers(4)
    if kind < 2:
        grain = np.clip(residual(np.rot90(other, 2)), -20, 20)
    else:
        white = rng.normal(0, 1, image.shape).astype(np.float32)
        soft = ndimage.gaussian_filter(white, float(rng.uniform(0.4, 1.2))) if kind == 2 else white
        grain = soft / (soft.std() + 1e-6) * float(rng.uniform(0.7, 3.0))
        # Quantum noise grows with the square root of the signal.
        grain *= np.sqrt(0.25 + image / 128.0) if rng.random() < 0.7 else 1.0
    return to_grey(image + strength * grain)


def smoother(image: Grey, rng: np.random.Generator) -> Grey:
    """As a denoising console makes it: Gaussian, median, or small residuals shrunk."""
    kind = rng.integers(3)
    if kind == 0:
        return to_grey(ndimage.gaussian_filter(image.astype(np.float32), float(rng.uniform(0.4, 1.2))))
    if kind == 1:
        return np.asarray(ndimage.median_filter(image, 3))
    taken, threshold = residual(image), float(rng.uniform(0.5, 3.0))
    return to_grey(image - np.sign(taken) * np.minimum(np.abs(taken), threshold))


def sharpness(image: Grey) -> float:
    """The variance of the Laplacian: how much fine texture there is, of whatever origin."""
    return float(np.var(ndimage.laplace(image.astype(np.float32))))


def as_sharp(image: Grey, wanted: float, other: Grey) -> Grey:
    """The image with about the `wanted` sharpness: with the grain of `other` (of its shape) added, or smoothed."""
    values, now = image.astype(np.float32), sharpness(image)
    if now < wanted:
        grain = np.clip(residual(np.rot90(other, 2)), -20, 20)
        strength = np.sqrt((wanted - now) / (float(np.var(ndimage.laplace(grain))) + 1e-6))
        return to_grey(values + min(float(strength), 3.0) * grain)
    low, high = 0.0, 2.0
    for _ in range(5):
        sigma = (low + high) / 2
        if sharpness(to_grey(ndimage.gaussian_filter(values, sigma))) > wanted:
            low = sigma
        else:
            high = sigma
    return to_grey(ndimage.gaussian_filter(values, (low + high) / 2))
