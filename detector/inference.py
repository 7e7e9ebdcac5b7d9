"""The detector in use: pixels to an opinion, with ONNX Runtime alone.

An image is looked at in four steps: is it in scope; what do the parts measure (`evidence`); what does that mean beside real
images (`calibration`); and, before it is called synthetic, does that hold when the image is compressed a little, blurred a
little, or moved by a few pixels?
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from detector.assessment import Assessment, Model, Reason, Word
from detector.augment import recoded, scaled
from detector.calibration import ALARM, CALM, STRANGE, Calibration
from detector.evidence import Evidence, Logits, heatmap, measured
from detector.preprocess import grey
from detector.scope import Scope

WEIGHTS: Final = Path(__file__).with_name("weights")
NETWORK: Final = "network.onnx"
CALIBRATION: Final = "calibration.json"
NAME: Final = "scanseal-detector"
_TOO_SMALL: Final = "what is left without its borders is too small to be looked at"


class WeightsDiffer(OSError):
    """The weights are not those that the calibration was made with: install the detector again."""


class Detector:
    """An opinion on arrays. One object may be used by several threads."""

    def __init__(self, scope: Scope, calibration: Calibration, logits: Logits) -> None:
        self._scope, self._calibration, self._logits = scope, calibration, logits
        self._model = Model(NAME, calibration.version, calibration.network_sha256)

    @classmethod
    def load(cls, folder: Path | None = None, *, threads: int = 0) -> Detector:
        """The detector of the weights in a folder, by default of those in the package. threads: of the network, 0 for all.

        Raises OSError where a file is missing, WeightsDiffer where the network isn't the calibrated one, ValueError for files
        of something else.
        """
        folder = WEIGHTS if folder is None else folder
        calibration = Calibration.load(folder / CALIBRATION)
        network = (folder / NETWORK).read_bytes()
        if hashlib.sha256(network).hexdigest() != calibration.network_sha256:
            raise WeightsDiffer(f"{NETWORK} is not the network that {CALIBRATION} was made with")
        return cls(Scope.load(folder / "scope.npz"), calibration, onnx_logits(network, threads))

    def assess(self, pixels: NDArray[Any], *, inverted: bool = False, bits: int | None = None) -> Assessment:
        """The opinion on an image (H, W) or (H, W, 3) of stored values; inverted: MONOCHROME1; bits: BitsStored, None for all.

        Raises ValueError for an array that is no picture of one frame.
        """
        image = grey(pixels, inverted=inverted, bits=bits)
        colour = pixels[..., :3] if pixels.ndim == 3 and pixels.shape[2] == 4 else pixels
        excluded = self._scope.refusal(
            colour if colour.ndim == 3 and colour.shape[2] == 3 and colour.dtype == np.uint8 else image
        )
        if excluded is not None:
            return Assessment("OUT_OF_SCOPE", reasons=(excluded,), model=self._model)
        evidence = measured(image, self._logits)
        if evidence is None:
            return Assessment("OUT_OF_SCOPE", reasons=(Reason("scope", None, _TOO_SMALL),), model=self._model)
        score = self._calibration.combined(evidence)
        word, reasons = self._word(image, evidence, score)
        return Assessment(
            word,
            synthetic_probability=float(1 / (1 + np.exp(-np.clip(score, -30, 30)))),
            false_positive_rate=ALARM,
            reasons=(*reasons, *self._reasons(evidence)),
            model=self._model,
            heatmap=heatmap(evidence, image.shape),
        )

    def _word(self, image: NDArray[np.uint8], evidence: Evidence, score: float) -> tuple[Word, tuple[Reason, ...]]:
        odd = self._calibration.p_value("combined", score, evidence.size)
        if odd > CALM:
            return "NO_SIGN_OF_SYNTHESIS", ()
        if odd > ALARM:
            return "INCONCLUSIVE", (Reason("threshold", odd, f"{odd:.1%} of real radiographs score as high: too many to say"),)
        strange = self._calibration.strangeness(evidence)
        if strange <= STRANGE:
            said = "its noise and spectrum are unlike those of every known group of real radiographs: no threshold holds for it"
            return "INCONCLUSIVE", (Reason("one-class", strange, said),)
        flip = self._flips(image)
        if flip is not None:
            return "INCONCLUSIVE", (Reason("stability", None, f"the finding is gone when the image is {flip}"),)
        return "LIKELY_SYNTHETIC", (Reason("combined", odd, f"at most {odd:.1%} of real radiographs score as high"),)

    def _flips(self, image: NDArray[np.uint8]) -> str | None:
        """What mild change takes the finding away; None if none does."""
        moved = image[3:-2, 2:-3]
        for said, changed in (
            ("compressed a little", recoded(image, "JPEG", 90)),
            ("moved and reduced a little", scaled(moved, 0.95)),
        ):
            evidence = measured(changed, self._logits)
            if evidence is None:
                return said
            if self._calibration.p_value("combined", self._calibration.combined(evidence), evidence.size) > CALM:
                return said
        return None

    def _reasons(self, evidence: Evidence) -> tuple[Reason, ...]:
        """What each part says for itself; its p-value is among real images of this size."""
        calibration, size = self._calibration, evidence.size
        of = {
            "network": (calibration.p_value("traces", evidence.traces, size), "traces of a generator in the fine texture"),
            "region": (calibration.p_value("region", evidence.region, size), "one place whose texture differs from the rest"),
            "statistics": (
                calibration.p_value("textures", calibration.textures(evidence.numbers), size),
                "spectrum, lattice and noise as in generated images",
            ),
            "one-class": (calibration.strangeness(evidence), "unlike the known groups of real radiographs, whichever way"),
        }
        return tuple(
            Reason(part, p, f"{text}: {'yes' if p <= ALARM else 'perhaps' if p <= CALM else 'no'}")
            for part, (p, text) in of.items()
        )


def onnx_logits(network: bytes, threads: int = 0) -> Logits:
    """The network of an ONNX file, for arrays. Raises ValueError if it is none."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own errors have no common base but this
        raise ValueError(f"{NETWORK} can't be run by ONNX Runtime") from error
    given = session.get_inputs()[0].name

    def logits(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(None, {given: pixels.astype(np.float32)[None, None] / 255})[0][0, 0]
        return found

    return logits
