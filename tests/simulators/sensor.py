"""A flat-panel detector that is *simulated*: what it leaves in its images, with a switch for each thing.

X-ray quanta fall on a scintillator that spreads their light, each pixel multiplies by its own gain, read-out adds lines and
noise, defective pixels are replaced by the mean of their neighbours. What calibration left of the gains is the fixed pattern.
It is a model for tests: no figure that comes out of it has been seen on a real panel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


@dataclass(frozen=True, eq=False)
class Sensor:
    """One simulated panel.

    strength: standard deviation of the gains of pixels after calibration, of their mean (0.01 is 1 %). lines: the same of
    columns and, half as much, of rows. quanta: in a fully exposed pixel. spread: the scintillator's blur in pixels. scatter:
    the share of the signal that is spread over tens of pixels. grid: how deep the shadows of an anti-scatter grid are, the same
    on every panel. electronic: read-out noise in quanta. dead: share of pixels that are interpolated. bits: of a stored value;
    full exposure is four fifths of the range.
    """

    gains: NDArray[np.float32]
    dead: NDArray[np.bool_]
    seed: int
    quanta: float = 3000.0
    spread: float = 0.6
    scatter: float = 0.3
    grid: float = 0.0
    electronic: float = 4.0
    bits: int = 12

    @classmethod
    def made(
        cls,
        shape: tuple[int, int],
        seed: int,
        *,
        strength: float = 0.005,
        lines: float = 0.001,
        dead: float = 0.001,
        **physics: float | int,
    ) -> Sensor:
        rng = np.random.default_rng([seed, 1])
        gains = 1 + rng.normal(0, strength, shape)
        gains += rng.normal(0, lines, shape[1]) + rng.normal(0, lines / 2, shape[0])[:, None]
        return cls(gains.astype(np.float32), rng.random(shape) < dead, seed, **physics)  # type: ignore[arg-type]

    def recalibrated(self, share: float, seed: int) -> Sensor:
        """The panel after its gains were measured anew: that share of the pattern's variance is another one."""
        rng = np.random.default_rng([seed, 2])
        pattern = self.gains - 1
        fresh = rng.normal(0, float(pattern.std()), pattern.shape)
        return replace(self, gains=(1 + np.sqrt(1 - share) * pattern + np.sqrt(share) * fresh).astype(np.float32))

    def image(self, scene: NDArray[np.floating], seed: int) -> NDArray[np.uint16]:
        """What it stores of a scene: (H, W) of transmitted X-rays in 0..1, of the panel's size."""
        rng = np.random.default_rng([self.seed, seed, 3])
        wide = ndimage.gaussian_filter(scene.astype(np.float32), 20)
        reaching = (1 - self.scatter) * scene + self.scatter * wide
        if self.grid:
            rows, columns = np.indices(scene.shape)
            reaching = reaching * (1 - self.grid * (1 + np.cos(2 * np.pi * (columns + 0.02 * rows) / 3.3)) / 2)
        caught = rng.poisson(np.clip(reaching, 0, 1) * self.quanta).astype(np.float32)
        signal = ndimage.gaussian_filter(caught, self.spread) * self.gains
        signal += rng.normal(0, self.electronic, signal.shape).astype(np.float32)
        around = ndimage.convolve(signal, np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) / 4, mode="nearest")
        signal = np.where(self.dead, around, signal)
        top = 2**self.bits - 1
        stored = np.clip(np.rint(signal / self.quanta * 0.8 * top), 0, top)
        return np.asarray(stored, np.uint16)


def presented(stored: NDArray[np.uint16], bits: int = 12) -> NDArray[np.uint8]:
    """Values as a device may present them: logarithm, edges enhanced, eight bits, dense parts bright."""
    depth = -np.log((stored.astype(np.float32) + 1) / 2**bits)
    sharp = depth + 0.6 * (depth - ndimage.gaussian_filter(depth, 2.5))
    low, high = np.percentile(sharp, [0.5, 99.5])
    return np.asarray(np.rint(np.clip((sharp - low) / (high - low), 0, 1) * 255), np.uint8)


def chest(shape: tuple[int, int], seed: int) -> NDArray[np.float32]:
    """A drawn scene that stands for a patient, (H, W) in 0..1: two bright fields, ribs, smooth tissue, dark borders.

    No two seeds give the same one, all have the same layout: what patterns must not be mistaken for.
    """
    rng = np.random.default_rng([seed, 4])
    rows, columns = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    rows, columns = rows + rng.uniform(-0.08, 0.08), columns + rng.uniform(-0.08, 0.08)
    scene = np.full(shape, 0.25)
    for side in (-1, 1):
        inside = ((columns - side * rng.uniform(0.38, 0.45)) / 0.33) ** 2 + (rows / rng.uniform(0.6, 0.75)) ** 2
        scene += rng.uniform(0.35, 0.5) / (1 + np.exp(12 * (inside - 1)))
    ribs = np.cos(rng.uniform(16, 22) * (rows + 0.5 * columns**2) + rng.uniform(0, 6))
    scene *= 1 - 0.12 / (1 + np.exp(-8 * ribs))
    scene *= 1 + 0.05 * ndimage.gaussian_filter(rng.normal(0, 1, shape), 6) * 6
    scene[: int(rng.integers(4, 12))] = 0.02
    scene[:, -int(rng.integers(4, 12)) :] = 0.02
    return np.asarray(np.clip(scene, 0.01, 1), np.float32)
