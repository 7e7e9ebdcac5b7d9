"""De-identification by PS3.15 Annex E: one Part 10 object in, one out, its pixels and its encoding untouched.

The same key gives the same UIDs and the same shift of a patient's dates for every image of a trial, so that references between
instances and intervals between visits hold; whoever has the key can find an original's child, and nobody else can.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from io import BytesIO
from typing import Final

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import UID

from ledger.core.deidentification import BASIC_PROFILE_CODE, Option
from ledger.core.errors import FixInput
from ledger.dicom.confidentiality import EDITION, GRAPHIC_TEXTS, Action, Rules, cleaned
from ledger.dicom.elements import PIXEL_DATA
from ledger.dicom.image import read
from ledger.dicom.pixel_module import PIXEL_ELEMENTS
from ledger.dicom.residue import (
    DUMMIES,
    Identifiers,
    check,
    is_registered,
    is_safe_element,
    parsed,
    reading,
    text_of,
    uids_of,
)

__all__ = ["Deidentified", "Option", "Warned", "check", "deidentify", "replaced_uid"]

_KEY_BYTES: Final = 16
_DAYS: Final = 3650
_CODE: Final = re.compile(r"[!-~](?:[ -~]{0,62}[!-~])?")
_DATE: Final = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})(.*)")
_MODIFIED: Final = "LongitudinalTemporalInformationModified"
_ALWAYS_BURNED: Final = re.compile(
    r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.(7(\.[1-4])?|3(\.1)?|6(\.[1-3])?|77\.1\.[124568](\.\d+)*)"
)


class Warned(StrEnum):
    """What the pixels may still show; they are never changed here, so that a person has to look."""

    BURNED_IN_ANNOTATION = "BurnedInAnnotation is YES: the pixels show an annotation"
    BURNED_IN_UNKNOWN = "BurnedInAnnotation is missing on a class whose pixels often show names"
    RECOGNIZABLE_FEATURES = "RecognizableVisualFeatures is YES: the pixels may show a face"
    OVERLAY_IN_PIXELS = "an overlay is kept in unused bits of the pixels"


@dataclass(frozen=True)
class Deidentified:
    """A de-identified Part 10 object, and what somebody should look at in its pixels before it leaves."""

    data: bytes
    warnings: tuple[Warned, ...]


def deidentify(
    data: bytes,
    options: frozenset[Option],
    uid_key: bytes,
    *,
    patient_id: str | None = None,
    patient_name: str | None = None,
) -> Deidentified:
    """`data` under the Basic Application Level Confidentiality Profile with `options` (PS3.15 Annex E, edition `EDITION`).

    `uid_key` (16 bytes or more, secret, one for a trial) makes the new UIDs and date shifts. `patient_id` and `patient_name`
    are the trial's code for the subject (printable ASCII, 64 characters); without them both are empty. A text that repeats the
    patient's name or numbers is removed wherever it stands. The result has passed `check`. Raises Unreadable as
    `ledger.dicom.read` does, and FixInput for options or codes that are not possible and for objects that can't be cleaned.
    """
    rules = Rules(options)
    if len(uid_key) < _KEY_BYTES:
        raise FixInput(f"a key of {len(uid_key)} bytes: at least {_KEY_BYTES} are needed")
    for what, code in (("patient id", patient_id), ("patient name", patient_name)):
        if code is not None and (not _CODE.fullmatch(code) or "\\" in code):
            raise FixInput(f"the {what} must be 1 to 64 printable ASCII characters without backslash or outer spaces")
    image = read(data)
    with reading():
        source, target = parsed(data), parsed(data, pixels=True)
        for what, code, keyword in (("id", patient_id, "PatientID"), ("name", patient_name, "PatientName")):
            if code is not None and str(source.get(keyword, "")).strip() == code:
                raise FixInput(f"the patient {what} given is the object's own {keyword}: choose a code for the subject")
        walk = _Walk(rules, uid_key, Identifiers.of(source), _shift(rules.options, uid_key, source))
        found = _warnings(source)
        walk.apply(source, target)
        _set_subject(target, patient_id, patient_name)
        _set_method(source, target, options)
        child = _written(target, image.transfer_syntax)
    check(data, child, options)
    return Deidentified(child, found)


def replaced_uid(uid_key: bytes, uid: str) -> str:
    """The UID that stands for `uid`: `2.25.` and a version 8 UUID (RFC 9562 §5.8) of HMAC-SHA256's first bits.

    UIDs that PS3.6 registers (classes, transfer syntaxes, coding schemes, well-known frames of reference) stand for themselves.
    """
    if is_registered(uid):
        return uid
    number = int.from_bytes(hmac.digest(uid_key, b"scanseal/uid\0" + uid.encode(), hashlib.sha256)[:16], "big")
    return f"2.25.{number & ~(0xF << 76) & ~(0x3 << 62) | 0x8 << 76 | 0x2 << 62}"


def _shift(options: frozenset[Option], uid_key: bytes, source: Dataset) -> timedelta | None:
    """How far this patient's dates move into the past, 1 to 3,650 days; None unless dates are to be modified."""
    if Option.RETAIN_LONGITUDINAL_MODIFIED_DATES not in options:
        return None
    patient = str(source.get("PatientID") or "").strip()
    if not patient:
        raise FixInput(f"{Option.RETAIN_LONGITUDINAL_MODIFIED_DATES} needs a PatientID: each patient's dates move together")
    number = int.from_bytes(hmac.digest(uid_key, b"scanseal/days\0" + patient.encode(), hashlib.sha256)[:8], "big")
    return timedelta(days=1 + number % _DAYS)


class _Walk:
    """Applies the rules to an object and all its items. `source` is only read, so that what stays keeps its bytes."""

    def __init__(self, rules: Rules, uid_key: bytes, identifiers: Identifiers, shift: timedelta | None) -> None:
        self._rules = rules
        self._uid_key = uid_key
        self._identifiers = identifiers
        self._shift = shift

    def apply(self, source: Dataset, target: Dataset) -> None:
        safe = Option.RETAIN_SAFE_PRIVATE in self._rules.options
        kept = {tag for tag in list(source.keys()) if tag.is_private and safe and is_safe_element(source, tag)}
        for tag in list(target.keys()):
            if tag in PIXEL_ELEMENTS:
                continue
            if tag.is_private or tag > PIXEL_DATA:
                if tag not in kept or self._identifiers.repeated_in(source[tag]):
                    del target[tag]
                continue
            self._element(source[tag], target)

    def _element(self, old: DataElement, target: Dataset) -> None:
        tag = old.tag
        action = self._rules.action(tag, old.VR)
        if old.VR == "SQ" and action in (Action.KEEP, Action.UID, Action.CLEAN):
            for item, other in zip(old.value, target[tag].value, strict=True):
                if action is Action.CLEAN:
                    for text in GRAPHIC_TEXTS & other.keys():
                        del other[text]
                self.apply(item, other)
        elif action is Action.REMOVE or (action is Action.KEEP and self._identifiers.repeated_in(old)):
            del target[tag]
        elif action is not Action.KEEP:
            target[tag] = DataElement(tag, old.VR, self._value(action, old))

    def _value(self, action: Action, old: DataElement) -> object:
        if old.VR == "SQ":
            return Sequence([] if action is Action.EMPTY else [Dataset()])
        if old.is_empty:
            return None
        if action is Action.EMPTY:
            return None
        if old.VR == "UI":
            return [replaced_uid(self._uid_key, uid) if uid else "" for uid in uids_of(old)]
        if action is Action.CLEAN and (text := cleaned(text_of(old), self._identifiers.names)):
            return text
        if action is Action.SHIFT and self._shift is not None:
            shifted = [_shifted(value, self._shift) for value in text_of(old).split("\\")]
            if None not in shifted:
                return shifted
        return DUMMIES.get(old.VR, bytes(8))


def _shifted(text: str, shift: timedelta) -> str | None:
    """A DA or DT value so much earlier; None when it has no whole date."""
    match = _DATE.fullmatch(text.strip())
    try:
        return f"{date(*map(int, match.group(1, 2, 3))) - shift:%Y%m%d}{match.group(4)}" if match else None
    except (ValueError, OverflowError):
        return None


def _set_subject(target: Dataset, patient_id: str | None, patient_name: str | None) -> None:
    for keyword, code in (("PatientID", patient_id), ("PatientName", patient_name)):
        if code is not None or keyword in target:
            setattr(target, keyword, code or "")


def _set_method(source: Dataset, target: Dataset, options: frozenset[Option]) -> None:
    """PS3.15 §E.1.1: what says in the object that, how and under which options it was de-identified."""
    target.PatientIdentityRemoved = "YES"
    earlier = source.get("DeidentificationMethod") or []
    methods = [earlier] if isinstance(earlier, str) else list(earlier)
    own = f"ScanSeal: PS3.15 {EDITION} Annex E"
    target.DeidentificationMethod = [*methods, own] if own not in methods else methods
    codes = target.get("DeidentificationMethodCodeSequence") or Sequence()
    have = {item.get("CodeValue") for item in codes}
    for value, meaning in (BASIC_PROFILE_CODE, *(option.code for option in sorted(options))):
        if value not in have:
            item = Dataset()
            item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
            codes.append(item)
    target.DeidentificationMethodCodeSequence = codes
    if Option.RETAIN_LONGITUDINAL_MODIFIED_DATES in options:
        setattr(target, _MODIFIED, "MODIFIED")
    elif Option.RETAIN_LONGITUDINAL_FULL_DATES in options:
        setattr(target, _MODIFIED, source.get(_MODIFIED) or "UNMODIFIED")
    else:
        setattr(target, _MODIFIED, "REMOVED")


def _warnings(source: Dataset) -> tuple[Warned, ...]:
    found = []
    burned = str(source.get("BurnedInAnnotation") or "").strip()
    if burned == "YES":
        found.append(Warned.BURNED_IN_ANNOTATION)
    elif burned != "NO" and _ALWAYS_BURNED.fullmatch(str(source.get("SOPClassUID") or "")):
        found.append(Warned.BURNED_IN_UNKNOWN)
    if str(source.get("RecognizableVisualFeatures") or "").strip() == "YES":
        found.append(Warned.RECOGNIZABLE_FEATURES)
    source_tags = list(source.keys())
    groups = {tag >> 16 for tag in source_tags if 0x6000 <= tag >> 16 <= 0x60FF}
    if any((group << 16 | 0x0102) in source and (group << 16 | 0x3000) not in source for group in groups):
        found.append(Warned.OVERLAY_IN_PIXELS)
    return tuple(found)


def _written(target: FileDataset, transfer_syntax: str) -> bytes:
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        if not target.get(keyword):
            raise FixInput(f"{keyword} is missing: a Part 10 file needs it")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = target.SOPClassUID
    meta.MediaStorageSOPInstanceUID = target.SOPInstanceUID
    meta.TransferSyntaxUID = UID(transfer_syntax)
    target.file_meta = meta
    target.preamble = bytes(128)
    output = BytesIO()
    dcmwrite(output, target, enforce_file_format=True)
    return output.getvalue()
