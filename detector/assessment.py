"""The opinion: one of five words on one image, with what it is worth. A statistical opinion, never a proof (DESIGN §7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Word = Literal["LIKELY_SYNTHETIC", "NO_SIGN_OF_SYNTHESIS", "INCONCLUSIVE", "OUT_OF_SCOPE", "NOT_RUN"]
WORDS: tuple[Word, ...] = ("LIKELY_SYNTHETIC", "NO_SIGN_OF_SYNTHESIS", "INCONCLUSIVE", "OUT_OF_SCOPE", "NOT_RUN")


@dataclass(frozen=True)
class Reason:
    """What one part of the detector says, in a sentence. p_value: the share of real radiographs that look at least as odd to
    that part, None where the part gives no such number."""

    part: str
    p_value: float | None
    text: str


@dataclass(frozen=True)
class Model:
    """Which weights gave the opinion. sha256: of the weights, in hex."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, eq=False)
class Assessment:
    """What the detector says of one image.

    `LIKELY_SYNTHETIC` is said at a threshold that a share `false_positive_rate` of real radiographs passes as well.
    `NO_SIGN_OF_SYNTHESIS` isn't "real": it is an image that looks like the real ones that the detector knows. `INCONCLUSIVE`
    lies between the thresholds or changes under mild re-encoding. `OUT_OF_SCOPE` is no radiograph of the kind that the
    detector was calibrated for, `NOT_RUN` was not looked at; both have neither probability nor heat map.
    synthetic_probability: calibrated, 0..1. heatmap: (H, W) float32 in 0..1 at the size of the image, where high is suspicious.
    """

    word: Word
    synthetic_probability: float | None = None
    false_positive_rate: float | None = None
    reasons: tuple[Reason, ...] = ()
    model: Model | None = None
    heatmap: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.word not in WORDS:
            raise ValueError(f"{self.word!r} is no assessment: {', '.join(WORDS)}")
        for name in ("synthetic_probability", "false_positive_rate"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} {value} is not in 0..1")
        if self.word in ("OUT_OF_SCOPE", "NOT_RUN") and self.synthetic_probability is not None:
            raise ValueError(f"{self.word} has no probability")


def not_run(reason: str, part: str = "reading") -> Assessment:
    """The assessment of an image that nobody looked at, and why."""
    return Assessment("NOT_RUN", reasons=(Reason(part, None, reason),))
