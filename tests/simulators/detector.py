"""A detector that is told what to say by an image's brightness, and that fails on demand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.assessment import Assessment, Model, Reason

MODEL = Model("simulated", "1", "ab" * 32)


class Brightness:
    """Says LIKELY_SYNTHETIC of bright images and NO_SIGN_OF_SYNTHESIS of others; `given` is what it was asked about, `raises`
    what happens instead."""

    def __init__(self, raises: Exception | None = None) -> None:
        self.given: list[tuple[NDArray[Any], bool, int | None]] = []
        self.raises = raises

    def assess(self, pixels: NDArray[Any], *, inverted: bool = False, bits: int | None = None) -> Assessment:
        if self.raises is not None:
            raise self.raises
        self.given.append((pixels, inverted, bits))
        bright = float(pixels.mean()) > 128
        word = "LIKELY_SYNTHETIC" if bright else "NO_SIGN_OF_SYNTHESIS"
        heatmap = np.full(pixels.shape[:2], float(bright), np.float32)
        return Assessment(word, 0.5 + bright / 3, 0.01, (Reason("brightness", 0.2, "bright"),), MODEL, heatmap)
