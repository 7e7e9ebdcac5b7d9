"""The detector's opinion on files: the one place that loads `detector`, and only when somebody asks for an opinion.

DICOM objects are read strictly and decoded in the child process that digests use; the detector is given stored values, never a
header. What a header says of modality and body part can only put an image out of scope. An opinion never changes a custody
verdict.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ledger.core.errors import FixInput, Refused, ScanSealError
from ledger.core.pixels import Photometric
from ledger.dicom import Image, find_images
from ledger.dicom.frames import frame_values

if TYPE_CHECKING:
    from detector.assessment import Assessment
    from detector.formats import Finding
    from ledger.wiring.fingerprints import Fingerprints

LIKELY_SYNTHETIC = 8
UNREADABLE = 7
HEATMAP_SUFFIX = ".heatmap.png"
_HEAD = 132
_RADIOGRAPHS = frozenset(("", "CR", "DX", "DR", "RG", "OT", "SC"))
"""Modalities (PS3.3 §C.7.3.1.1.1, and a common wrong one) that a chest radiograph may come with, rightly or not."""
_CHEST = ("CHEST", "THORAX", "TORAX", "TORACE", "LUNG", "RIB", "HEART", "STERNUM", "CLAVICLE")
_ELSEWHERE = (
    *("HAND", "FINGER", "THUMB", "WRIST", "ARM", "ELBOW", "HUMERUS", "SHOULDER", "SCAPULA", "EXTREMITY"),
    *("FOOT", "TOE", "ANKLE", "CALCANEUS", "TIBIA", "LEG", "KNEE", "PATELLA", "FEMUR", "THIGH", "HIP", "PELVIS"),
    *("SPINE", "SACRUM", "COCCYX", "ABDOMEN", "BREAST", "NECK", "SKULL", "HEAD", "SINUS", "ORBIT", "JAW", "MANDIBLE", "TEETH"),
)
"""What body parts have in their names (PS3.16 annex L). Other names say nothing: the pixels decide."""


class NotInstalled(FixInput):
    """The detector's libraries or weights are not there; the message says how to install them."""


class WithoutPixels(Refused):
    """A report, a plan or another object that is no image."""


class Seen(NamedTuple):
    """Stored values of one picture, for the detector. pages: how many frames the object has, of which this is the first."""

    pixels: np.ndarray[Any, np.dtype[Any]]
    inverted: bool
    bits: int
    pages: int


@dataclass(frozen=True, eq=False)
class Opinion:
    """What the detector says of the image at a path, what its file tells of itself, and where the heat map was written."""

    path: str
    assessment: Assessment
    findings: tuple[Finding, ...] = ()
    heatmap: Path | None = None

    @property
    def exit_code(self) -> int:
        return {"LIKELY_SYNTHETIC": LIKELY_SYNTHETIC, "NOT_RUN": UNREADABLE}.get(self.assessment.word, 0)

    def as_json(self) -> dict[str, Any]:
        """One image of `scanseal detect --json`; `ledger/cli/detect.schema.json` describes it."""
        given, model = self.assessment, self.assessment.model
        return {
            "path": self.path,
            "assessment": given.word,
            "synthetic_probability": given.synthetic_probability,
            "false_positive_rate": given.false_positive_rate,
            "reasons": [{"part": one.part, "p_value": one.p_value, "text": one.text} for one in given.reasons],
            "model": None if model is None else {"name": model.name, "version": model.version, "sha256": model.sha256},
            "findings": [{"kind": one.kind, "text": one.text} for one in self.findings],
            "heatmap": None if self.heatmap is None else str(self.heatmap),
        }


class Looked(NamedTuple):
    """An image at a place; `named` unless it was found in a folder or an archive."""

    path: str
    named: bool
    open: Callable[[], Image] | None
    """None for a picture that is no DICOM object."""


class Images:
    """The images in files, folders, zip archives (DICOM only) and DICOMDIRs, lazily: of a folder its DICOM objects first, then
    its pictures. Iterate once: then `skipped` has the number of other files there."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.skipped = 0
        self._paths = paths

    def __iter__(self) -> Iterator[Looked]:
        from detector.pictures import is_picture

        for path in self._paths:
            place = Path(path)
            if is_picture(_start(place)):
                yield Looked(path, True, None)
                continue
            files = find_images([place])
            yield from (Looked(file.path, file.named, file.open) for file in files)
            self.skipped += files.skipped
            if place.is_dir():
                for picture in _pictures(place):
                    self.skipped -= 1
                    yield Looked(str(picture), False, None)


def _pictures(folder: Path) -> Iterator[Path]:
    """Pictures below a folder by name and first bytes, but those that show where."""
    from detector.pictures import SUFFIXES, is_picture

    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if not name.endswith(HEATMAP_SUFFIX) and Path(name).suffix.lower() in SUFFIXES:
                picture = Path(parent, name)
                if is_picture(_start(picture)):
                    yield picture


def _start(file: Path) -> bytes:
    """The first bytes of a regular file, none of anything else: a DICOM object may have a TIFF's start in its preamble (PS3.10
    §7.1)."""
    try:
        if not file.is_file():
            return b""
        with file.open("rb") as opened:
            start = opened.read(_HEAD)
        return b"" if start[128:] == b"DICM" else start
    except (OSError, ValueError):
        return b""


class Detector(Protocol):
    """Who has an opinion: `detector.inference.Detector`."""

    def assess(self, pixels: np.ndarray[Any, np.dtype[Any]], *, inverted: bool = False, bits: int | None = None) -> Assessment:
        """Of stored values (H, W) or (H, W, 3) of so many bits; inverted: small values are bright. Raises ValueError for an
        array that is no picture."""


class Opinions:
    """Asks the detector about images, one at a time. heatmaps: the folder for pictures of where, which is made when needed.
    fingerprints: of devices that images may claim."""

    def __init__(self, detector: Detector, heatmaps: Path | None = None, fingerprints: Fingerprints | None = None) -> None:
        self._detector, self._heatmaps, self._fingerprints = detector, heatmaps, fingerprints
        self._written: set[str] = set()

    @classmethod
    def load(cls, heatmaps: Path | None = None, fingerprints: Fingerprints | None = None) -> Opinions:
        """Raises NotInstalled."""
        try:
            # By name: what is imported here is checked where ONNX Runtime is installed, and `verify` goes on without it.
            return cls(importlib.import_module("detector.inference").Detector.load(), heatmaps, fingerprints)
        except ImportError as error:
            missing = error.name or "a library"
            raise NotInstalled(
                f"the detector is not installed ({missing} is missing): pip install 'scanseal[detector]'"
            ) from error
        except OSError as error:
            raise NotInstalled(f"the detector's weights can't be read ({error.strerror or error}): install it again") from error

    def of(self, looked: Looked) -> Opinion:
        """The opinion on an image; what can't be read is NOT_RUN, with the reason. Raises WithoutPixels for a DICOM object that
        was found in a folder or an archive and is no image."""
        if looked.open is None:
            return self._of_picture(looked.path)
        try:
            return self.of_dicom(looked.path, looked.open)
        except WithoutPixels as error:
            if looked.named:
                return _not_run(looked.path, str(error))
            raise

    def of_dicom(self, path: str, opener: Callable[[], Image]) -> Opinion:
        """The opinion on a DICOM object. Raises WithoutPixels."""
        from detector.assessment import Assessment, Reason
        from detector.formats import Finding, value_findings

        try:
            image = opener()
            if not image.frames:
                raise WithoutPixels("the object has no pixels: there is nothing to look at")
            excluded = out_of_scope(image.attributes)
            if excluded is not None:
                without = Opinion(path, Assessment("OUT_OF_SCOPE", reasons=(Reason("header", None, excluded),)))
                return self._with_device(without, image)
            seen = values(image)
        except WithoutPixels:
            raise
        except ScanSealError as error:
            return _not_run(path, str(error))
        except OSError as error:
            return _not_run(path, f"cannot be read ({error.strerror})")
        found = value_findings(seen.pixels, seen.bits)
        if seen.pages > 1:
            found = (*found, Finding("pages", f"the object has {seen.pages} frames: only the first one was looked at"))
        return self._with_device(self._given(path, seen, found), image, seen)

    def _with_device(self, opinion: Opinion, image: Image, seen: Seen | None = None) -> Opinion:
        """The opinion with what the fingerprint of the claimed device says, where there is one. It changes no word."""
        reason = None if self._fingerprints is None else self._fingerprints.reason(image, seen)
        if reason is None:
            return opinion
        return replace(opinion, assessment=replace(opinion.assessment, reasons=(*opinion.assessment.reasons, reason)))

    def _of_picture(self, path: str) -> Opinion:
        from detector import pictures
        from detector.formats import file_findings

        try:
            content = pictures.content_of(Path(path))
            picture = pictures.read(content)
        except pictures.PictureUnreadable as error:
            return _not_run(path, str(error))
        seen = Seen(picture.pixels, picture.inverted, picture.bits, picture.pages)
        return self._given(path, seen, file_findings(content, picture))

    def _given(self, path: str, seen: Seen, findings: tuple[Finding, ...]) -> Opinion:
        try:
            assessment = self._detector.assess(seen.pixels, inverted=seen.inverted, bits=seen.bits)
        except (ValueError, MemoryError) as error:
            return replace(_not_run(path, f"the detector can't take it: {error or 'too little memory'}"), findings=findings)
        opinion = Opinion(path, assessment, findings)
        if self._heatmaps is None or assessment.heatmap is None:
            return opinion
        from detector.overlay import overlay

        return replace(opinion, heatmap=self._write(path, overlay(seen.pixels, assessment.heatmap, inverted=seen.inverted)))

    def _write(self, path: str, content: bytes) -> Path:
        folder = self._heatmaps or Path()
        stem = path.replace("!/", "/").replace("\\", "/").rstrip("/").rpartition("/")[2] or "image"
        name, number = stem, 1
        while name in self._written:
            number += 1
            name = f"{stem}-{number}"
        self._written.add(name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / (name + HEATMAP_SUFFIX)
            file.write_bytes(content)
        except OSError as error:
            raise FixInput(f"--heatmap {folder}: cannot be written ({error.strerror})") from error
        return file


def _not_run(path: str, reason: str) -> Opinion:
    from detector.assessment import not_run

    return Opinion(path, not_run(reason))


def not_asked(reason: str) -> dict[str, Any]:
    """NOT_RUN as JSON, for an image that the detector could not be asked about."""
    return {"assessment": "NOT_RUN", "reasons": [{"part": "reading", "p_value": None, "text": reason}]}


def out_of_scope(attributes: Any) -> str | None:
    """Why a DICOM object's header puts it out of scope, or None. It never says more: headers can be wrong, and forged."""
    modality = (attributes["Modality"] or "").strip().upper()
    if modality not in _RADIOGRAPHS:
        return f"Modality {modality[:16]}: the detector is calibrated for chest radiographs"
    body_part = (attributes["BodyPartExamined"] or "").strip().upper().replace(" ", "")
    if any(part in body_part for part in _ELSEWHERE) and not any(part in body_part for part in _CHEST):
        return f"BodyPartExamined {body_part[:16]}: the detector is calibrated for chest radiographs"
    return None


def values(image: Image) -> Seen:
    """The first frame's stored values, (H, W) or (H, W, 3); rescale and window are not applied. Raises ScanSealError."""
    header, frames = frame_values(image)
    frame = next(iter(frames))
    if header.photometric == Photometric.PALETTE_COLOR:
        raise Refused("palette colours: no radiograph is stored so")
    if header.samples_per_pixel == 1:
        return Seen(frame[..., 0], header.photometric == Photometric.MONOCHROME1, 8 * header.width, header.frames)
    if header.samples_per_pixel != 3:
        raise Refused(f"{header.samples_per_pixel} samples in a pixel")
    if header.photometric == Photometric.YBR_FULL:
        frame = _rgb(frame)
    equal = (frame[..., :1] == frame).all()
    return Seen(frame[..., 0] if equal else frame, False, 8 * header.width, header.frames)


def _rgb(frame: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
    """YBR_FULL of 8 bits as RGB (PS3.3 §C.7.6.3.1.2)."""
    light, blue, red = (frame[..., channel].astype(np.float32) - (128 if channel else 0) for channel in range(3))
    colours = np.stack([light + 1.402 * red, light - 0.344136 * blue - 0.714136 * red, light + 1.772 * blue], axis=-1)
    return np.asarray(np.rint(np.clip(colours, 0, 255)), np.uint8)
