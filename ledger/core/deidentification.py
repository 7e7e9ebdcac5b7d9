"""What a de-identification may change: the Basic Application Level Confidentiality Profile of PS3.15 Annex E and its options.

Only the bound attributes (FORMAT.md §2.1) are here, for receipts: whoever checks one needs no DICOM library. What happens to
each element of an object is `ledger.dicom`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from ledger.core.attributes import ATTRIBUTES
from ledger.core.errors import FixInput


class Option(StrEnum):
    """The options of PS3.15 §E.3, as a user writes them."""

    CLEAN_PIXEL_DATA = "clean-pixel-data"
    CLEAN_RECOGNIZABLE_VISUAL_FEATURES = "clean-recognizable-visual-features"
    CLEAN_GRAPHICS = "clean-graphics"
    CLEAN_STRUCTURED_CONTENT = "clean-structured-content"
    CLEAN_DESCRIPTORS = "clean-descriptors"
    RETAIN_LONGITUDINAL_FULL_DATES = "retain-longitudinal-full-dates"
    RETAIN_LONGITUDINAL_MODIFIED_DATES = "retain-longitudinal-modified-dates"
    RETAIN_PATIENT_CHARACTERISTICS = "retain-patient-characteristics"
    RETAIN_DEVICE_IDENTITY = "retain-device-identity"
    RETAIN_UIDS = "retain-uids"
    RETAIN_SAFE_PRIVATE = "retain-safe-private"
    RETAIN_INSTITUTION_IDENTITY = "retain-institution-identity"

    @property
    def code(self) -> tuple[str, str]:
        """Code value (scheme DCM) and meaning of PS3.16 CID 7050."""
        return _CODES[self]


BASIC_PROFILE_CODE: Final = ("113100", "Basic Application Confidentiality Profile")

_CODES: Final[Mapping[Option, tuple[str, str]]] = MappingProxyType(
    {
        Option.CLEAN_PIXEL_DATA: ("113101", "Clean Pixel Data Option"),
        Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES: ("113102", "Clean Recognizable Visual Features Option"),
        Option.CLEAN_GRAPHICS: ("113103", "Clean Graphics Option"),
        Option.CLEAN_STRUCTURED_CONTENT: ("113104", "Clean Structured Content Option"),
        Option.CLEAN_DESCRIPTORS: ("113105", "Clean Descriptors Option"),
        Option.RETAIN_LONGITUDINAL_FULL_DATES: ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
        Option.RETAIN_LONGITUDINAL_MODIFIED_DATES: ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
        Option.RETAIN_PATIENT_CHARACTERISTICS: ("113108", "Retain Patient Characteristics Option"),
        Option.RETAIN_DEVICE_IDENTITY: ("113109", "Retain Device Identity Option"),
        Option.RETAIN_UIDS: ("113110", "Retain UIDs Option"),
        Option.RETAIN_SAFE_PRIVATE: ("113111", "Retain Safe Private Option"),
        Option.RETAIN_INSTITUTION_IDENTITY: ("113112", "Retain Institution Identity Option"),
    }
)

_IMPOSSIBLE: Final[Mapping[Option, str]] = MappingProxyType(
    {
        Option.CLEAN_PIXEL_DATA: "pixels are never changed here: clean them first, as a derivation of its own",
        Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES: "pixels are never changed here: deface first, as a derivation of its own",
        Option.CLEAN_STRUCTURED_CONTENT: "structured content takes a person to clean: leave the option out, and it is removed",
    }
)

_FULL: Final = Option.RETAIN_LONGITUDINAL_FULL_DATES
_MODIFIED: Final = Option.RETAIN_LONGITUDINAL_MODIFIED_DATES

_RETAINED_BY: Final[Mapping[str, frozenset[Option]]] = MappingProxyType(
    {
        **dict.fromkeys(
            ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "AccessionNumber"), frozenset[Option]()
        ),
        "PatientSex": frozenset((Option.RETAIN_PATIENT_CHARACTERISTICS,)),
        **dict.fromkeys(
            ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"), frozenset((Option.RETAIN_UIDS,))
        ),
        **dict.fromkeys(("StudyDate", "AcquisitionDate", "AcquisitionDateTime"), frozenset((_FULL,))),
        # Dates move by whole days, so that times of day stay.
        **dict.fromkeys(("StudyTime", "AcquisitionTime"), frozenset((_FULL, _MODIFIED))),
        **dict.fromkeys(("DeviceSerialNumber", "StationName"), frozenset((Option.RETAIN_DEVICE_IDENTITY,))),
    }
)


def refuse_impossible(options: frozenset[Option]) -> None:
    """Raises FixInput for an option that this package can't do honestly, and for two that contradict each other."""
    for option, reason in _IMPOSSIBLE.items():
        if option in options:
            raise FixInput(f"{option} is not possible: {reason}")
    if {_FULL, _MODIFIED} <= options:
        raise FixInput(f"{_FULL} and {_MODIFIED} contradict each other: choose one")


def may_change(options: frozenset[Option]) -> frozenset[str]:
    """The keywords of `attributes-1` that the basic profile with these options may change.

    Never among them: pixels, geometry, rescale, laterality, view, modality, SOPClassUID. Raises FixInput as
    `refuse_impossible` does.
    """
    refuse_impossible(options)
    return frozenset(a.keyword for a in ATTRIBUTES if a.keyword in _RETAINED_BY and not _RETAINED_BY[a.keyword] & options)
