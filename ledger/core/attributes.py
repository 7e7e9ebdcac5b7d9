"""The attributes that a record binds, and the one text that each value is bound as. FORMAT.md §2.1 and §2.2.

Two files that mean the same must give the same text, whatever tool wrote them: padding, number notation and defaults that
transcoders add are normalised away. Here are the rules on decoded text; bytes, character sets and VRs are `ledger.dicom`'s.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Attribute:
    """One bound attribute: PS3.6 keyword, tag (group << 16 | element), VR, and the group it is named under in a verdict."""

    keyword: str
    tag: int
    vr: str
    group: str


@dataclass(frozen=True, slots=True)
class Member:
    """One bound attribute inside the items of a sequence."""

    keyword: str
    tag: int
    vr: str


_LIST: Final = (
    ("patient", "PatientName", 0x00100010, "PN"),
    ("patient", "PatientID", 0x00100020, "LO"),
    ("patient", "IssuerOfPatientID", 0x00100021, "LO"),
    ("patient", "PatientBirthDate", 0x00100030, "DA"),
    ("patient", "PatientSex", 0x00100040, "CS"),
    ("study", "StudyInstanceUID", 0x0020000D, "UI"),
    ("study", "StudyDate", 0x00080020, "DA"),
    ("study", "StudyTime", 0x00080030, "TM"),
    ("study", "AccessionNumber", 0x00080050, "SH"),
    ("series", "SeriesInstanceUID", 0x0020000E, "UI"),
    ("series", "Modality", 0x00080060, "CS"),
    ("instance", "SOPClassUID", 0x00080016, "UI"),
    ("instance", "SOPInstanceUID", 0x00080018, "UI"),
    ("instance", "InstanceNumber", 0x00200013, "IS"),
    ("instance", "ImageType", 0x00080008, "CS"),
    ("acquisition", "AcquisitionDateTime", 0x0008002A, "DT"),
    ("acquisition", "AcquisitionDate", 0x00080022, "DA"),
    ("acquisition", "AcquisitionTime", 0x00080032, "TM"),
    ("anatomy", "BodyPartExamined", 0x00180015, "CS"),
    ("anatomy", "AnatomicRegionSequence", 0x00082218, "SQ"),
    ("anatomy", "Laterality", 0x00200060, "CS"),
    ("anatomy", "ImageLaterality", 0x00200062, "CS"),
    ("anatomy", "ViewPosition", 0x00185101, "CS"),
    ("anatomy", "PatientOrientation", 0x00200020, "CS"),
    ("anatomy", "PatientPosition", 0x00185100, "CS"),
    ("geometry", "PixelSpacing", 0x00280030, "DS"),
    ("geometry", "ImagerPixelSpacing", 0x00181164, "DS"),
    ("geometry", "PixelAspectRatio", 0x00280034, "IS"),
    ("geometry", "SliceThickness", 0x00180050, "DS"),
    ("geometry", "SpacingBetweenSlices", 0x00180088, "DS"),
    ("geometry", "ImagePositionPatient", 0x00200032, "DS"),
    ("geometry", "ImageOrientationPatient", 0x00200037, "DS"),
    ("geometry", "FrameOfReferenceUID", 0x00200052, "UI"),
    ("geometry", "SequenceOfUltrasoundRegions", 0x00186011, "SQ"),
    # Not an element: the bound lines of (5200,9229) and (5200,9230); the tag is that of the shared one.
    ("geometry", "FunctionalGroups", 0x52009229, "SQ"),
    ("rescale", "RescaleSlope", 0x00281053, "DS"),
    ("rescale", "RescaleIntercept", 0x00281052, "DS"),
    ("rescale", "RescaleType", 0x00281054, "LO"),
    ("rescale", "ModalityLUTSequence", 0x00283000, "SQ"),
    ("rescale", "Units", 0x00541001, "CS"),
    ("rescale", "PresentationLUTShape", 0x20500020, "CS"),
    ("equipment", "Manufacturer", 0x00080070, "LO"),
    ("equipment", "ManufacturerModelName", 0x00081090, "LO"),
    ("equipment", "DeviceSerialNumber", 0x00181000, "LO"),
    ("equipment", "StationName", 0x00081010, "SH"),
)

ATTRIBUTES: Final[tuple[Attribute, ...]] = tuple(Attribute(keyword, tag, vr, group) for group, keyword, tag, vr in _LIST)
"""List `attributes-1`, in its order."""

GROUPS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {group: tuple(a.keyword for a in ATTRIBUTES if a.group == group) for group in dict.fromkeys(a.group for a in ATTRIBUTES)}
)
"""Group name -> its keywords, both in the list's order."""

SHARED_GROUPS: Final = 0x52009229
PER_FRAME_GROUPS: Final = 0x52009230

SEQUENCES: Final[Mapping[str, tuple[Member, ...]]] = MappingProxyType(
    {
        "AnatomicRegionSequence": (Member("CodeValue", 0x00080100, "SH"), Member("CodingSchemeDesignator", 0x00080102, "SH")),
        "ModalityLUTSequence": (
            Member("LUTDescriptor", 0x00283002, "US"),
            Member("ModalityLUTType", 0x00283004, "LO"),
            Member("LUTData", 0x00283006, "OW"),
        ),
        "SequenceOfUltrasoundRegions": (
            Member("RegionSpatialFormat", 0x00186012, "US"),
            Member("RegionDataType", 0x00186014, "US"),
            Member("RegionLocationMinX0", 0x00186018, "UL"),
            Member("RegionLocationMinY0", 0x0018601A, "UL"),
            Member("RegionLocationMaxX1", 0x0018601C, "UL"),
            Member("RegionLocationMaxY1", 0x0018601E, "UL"),
            Member("PhysicalUnitsXDirection", 0x00186024, "US"),
            Member("PhysicalUnitsYDirection", 0x00186026, "US"),
            Member("PhysicalDeltaX", 0x0018602C, "FD"),
            Member("PhysicalDeltaY", 0x0018602E, "FD"),
        ),
    }
)
"""The bound members of each bound sequence, in order of the tag."""

MACROS: Final[Mapping[int, tuple[str, tuple[Member, ...]]]] = MappingProxyType(
    {
        0x00209071: ("FrameAnatomySequence", (Member("FrameLaterality", 0x00209072, "CS"),)),
        0x00209113: ("PlanePositionSequence", (Member("ImagePositionPatient", 0x00200032, "DS"),)),
        0x00209116: ("PlaneOrientationSequence", (Member("ImageOrientationPatient", 0x00200037, "DS"),)),
        0x00289110: (
            "PixelMeasuresSequence",
            (
                Member("SliceThickness", 0x00180050, "DS"),
                Member("SpacingBetweenSlices", 0x00180088, "DS"),
                Member("PixelSpacing", 0x00280030, "DS"),
            ),
        ),
        0x00289145: (
            "PixelValueTransformationSequence",
            (
                Member("RescaleIntercept", 0x00281052, "DS"),
                Member("RescaleSlope", 0x00281053, "DS"),
                Member("RescaleType", 0x00281054, "LO"),
            ),
        ),
    }
)
"""Macro sequence tag -> keyword and bound members: what FunctionalGroups binds of a group, in order of the tag."""

_DEFAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {"RescaleSlope": "1", "RescaleIntercept": "0", "PixelAspectRatio": "1\\1", "RescaleType": "US"}
)

_NUMBER = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]{1,3}))?")
_TIME = re.compile(r"([0-9]{2}):([0-9]{2})(?::([0-9]{2}))?(\.[0-9]*)?")
_DATE = re.compile(r"([0-9]{4})\.([0-9]{2})\.([0-9]{2})")
_FRACTION = re.compile(r"([0-9]+)\.([0-9]*)([+-][0-9]{4})?")


def normalised(vr: str, text: str) -> str | None:
    """The bound text of an attribute with VR `vr` from its decoded value (values joined with backslashes), or None if absent.

    DA, DS, DT, IS, PN and TM have rules of their own (FORMAT.md §2.2); every other VR is plain text.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    rule = _RULES.get(vr)
    if "\\" not in text:
        value = text.rstrip(" \0").lstrip(" ")
        if rule and value:
            value = rule(value)
        return value or None
    values = [value.rstrip(" \0").lstrip(" ") for value in text.split("\\")]
    if rule:
        values = [rule(value) if value else value for value in values]
    return "\\".join(values) if any(values) else None


def number(text: str) -> str:
    """A decimal without exponent, plus sign, leading or trailing zeros; `-0` is `0`. What is no number stays as it is.

    An exponent of more than three digits counts as no number: no short text may stand for gigabytes of zeros.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        return text
    sign, whole, fraction, exponent = match.group(1), match.group(2), match.group(3) or "", match.group(4)
    digits = whole + fraction
    if not digits:
        return text
    point = len(whole) + int(exponent or 0)
    if point < 0:
        digits, point = "0" * -point + digits, 0
    elif point > len(digits):
        digits += "0" * (point - len(digits))
    whole, fraction = digits[:point].lstrip("0") or "0", digits[point:].rstrip("0")
    value = f"{whole}.{fraction}" if fraction else whole
    return f"-{value}" if sign == "-" and value != "0" else value


def float_text(value: float) -> str:
    """The shortest decimal that rounds to the double `value`, in the notation of `number`; `nan`, `inf` or `-inf`."""
    return number(repr(value))


def _person_name(value: str) -> str:
    return "=".join(group.rstrip("^") for group in value.split("=")).rstrip("=")


def _date(value: str) -> str:
    match = _DATE.fullmatch(value)
    return "".join(match.groups()) if match else value


def _moment(value: str) -> str:
    match = _FRACTION.fullmatch(value)
    if match is None:
        return value
    whole, fraction, zone = match.group(1), match.group(2).rstrip("0"), match.group(3) or ""
    return f"{whole}.{fraction}{zone}" if fraction else whole + zone


def _time(value: str) -> str:
    match = _TIME.fullmatch(value)
    return _moment("".join(part or "" for part in match.groups()) if match else value)


_RULES: Final = {"DS": number, "IS": number, "PN": _person_name, "DA": _date, "TM": _time, "DT": _moment}


def without_default(keyword: str, value: str | None, photometric: str | None = None) -> str | None:
    """`value`, or None when it equals its default: transcoders add those. `photometric`: PhotometricInterpretation."""
    if keyword == "PresentationLUTShape":
        default = "INVERSE" if photometric == "MONOCHROME1" else "IDENTITY"
    else:
        default = _DEFAULTS.get(keyword, "")
    return None if value == default else value


def sequence_text(lines: Iterable[tuple[str, str, str | None]]) -> str | None:
    """The bound text of a sequence from (item path, keyword, normalised value) in order: one `path.Keyword=value` a line.

    A member without a value has no line; without lines the sequence is absent.
    """
    text = "\n".join(f"{path}.{keyword}={value}" for path, keyword, value in lines if value is not None)
    return text or None
