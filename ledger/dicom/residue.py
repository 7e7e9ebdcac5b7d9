"""Did a de-identification leave anything behind, or change what it may not? Reads both objects and trusts no tool's word.

What this does not see: names in the pixels, in the shape of a face, in the numbers of an instance, or in free text that the
profile keeps and that repeats none of the parent's own identifying values.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from io import BytesIO
from typing import Final, NoReturn

import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID

from ledger.core.attributes import ATTRIBUTES
from ledger.core.deidentification import Option, may_change
from ledger.core.errors import FixInput, ScanSealError, Unreadable
from ledger.dicom.confidentiality import GRAPHIC_TEXTS, TEXT_VRS, Action, Rules, cleaned, is_safe_private
from ledger.dicom.elements import named
from ledger.dicom.image import Image, read

PATIENT_NAME: Final = 0x00100010
PATIENT_ID: Final = 0x00100020
METHOD_TAGS: Final = frozenset((0x00120062, 0x00120063, 0x00120064, 0x00280303))
"""PatientIdentityRemoved, DeidentificationMethod and its codes, LongitudinalTemporalInformationModified."""

_SHORTEST: Final = 4
_SAYS_NOTHING: Final = frozenset(("removed", "19000101"))  # our own dummies, in a parent that was de-identified before
_NAMES: Final = (
    PATIENT_NAME,
    0x00101001,
    0x00101005,
    0x00101060,
)  # OtherPatientNames, PatientBirthName, PatientMotherBirthName
# PatientID, PatientBirthDate, AccessionNumber, OtherPatientIDs, PatientAddress, PatientTelephoneNumbers, MedicalRecordLocator
_NUMBERS: Final = (PATIENT_ID, 0x00100030, 0x00080050, 0x00101000, 0x00101040, 0x00102154, 0x00101090)
_FREE_TEXT_VRS: Final = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
_FIXED: Final = frozenset(a.tag for a in ATTRIBUTES) - {a.tag for a in ATTRIBUTES if a.keyword in may_change(frozenset())}
_META_TAGS: Final = frozenset((0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013))
_WORD: Final = re.compile(r"[^\W_]+")

DUMMIES: Final = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), "REMOVED"),
    "AS": "000Y",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "AT": 0,
    "UR": "http://removed.invalid",
    **dict.fromkeys(("DS", "IS"), "0"),
    **dict.fromkeys(("FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"), 0),
}
"""The dummy value of each VR that has one; the others get eight zero bytes."""


_quiet: ContextVar[bool] = ContextVar("_quiet", default=False)


def _is_not_ours(_record: logging.LogRecord) -> bool:
    return not _quiet.get()


logging.getLogger("pydicom").addFilter(_is_not_ours)


@contextmanager
def reading() -> Iterator[None]:
    """pydicom at work on bytes from strangers: what it can't convert is Unreadable, and nothing it says gets out.

    Its messages, warnings and log lines quote values, so that they are dropped, the cause of the error too.
    """
    token = _quiet.set(True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (ScanSealError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 pydicom raises what its parsers happen to raise
            raise Unreadable(f"a value that can't be converted ({type(error).__name__})") from None
        finally:
            _quiet.reset(token)


def parsed(data: bytes, *, pixels: bool = False) -> FileDataset:
    """The object as pydicom reads it, up to the pixel element unless `pixels`; for use inside `reading`."""
    return pydicom.dcmread(BytesIO(data), force=True, stop_before_pixels=not pixels)


def name_of(tag: int) -> str:
    """The keyword, or the tag where there is none."""
    return keyword_for_tag(tag) or named(tag)


def text_of(element: DataElement) -> str:
    """The decoded text of a text element, its values joined with backslashes."""
    value = element.value
    if value is None:
        return ""
    return "\\".join(map(str, value)) if isinstance(value, list | tuple) or element.VM > 1 else str(value)


def _spaced(text: str) -> str:
    return " ".join(_WORD.findall(text))


@dataclass(frozen=True)
class Identifiers:
    """What identifies one object's patient, case-folded.

    `values` are whole values, `parts` the words and components of the patient's own name, `names` the words of every person's.
    """

    values: frozenset[str]
    parts: frozenset[str]
    names: frozenset[str]

    @classmethod
    def of(cls, dataset: Dataset) -> Identifiers:
        """Those of an object and all its items. Values and parts of fewer than four characters are left out."""
        values, parts, names = set[str](), set[str](), set[str]()
        for element in dataset.iterall():
            if element.VR == "PN" or element.tag in _NUMBERS:
                text = text_of(element).casefold()
                values.update(part.strip(" ^") for part in re.split(r"[\\=]", text))
                if element.VR == "PN":
                    names.update(_WORD.findall(text))
                if element.tag in _NAMES:
                    parts.update(_WORD.findall(text), (_spaced(part) for part in re.split(r"[\\=^]", text)))
        return cls(
            frozenset(value for value in values if len(value) >= _SHORTEST) - _SAYS_NOTHING,
            frozenset(part for part in parts if len(part) >= _SHORTEST) - _SAYS_NOTHING,
            frozenset(names),
        )

    def repeated_in(self, element: DataElement, *, parts: bool = True) -> bool:
        """Whether a text has one of the values in it, or (free text that binds nothing) a part of the patient's name."""
        if element.VR == "UN" and isinstance(element.value, bytes):  # a private element's text in implicit VR
            text = element.value.decode("latin-1").casefold()
        elif element.VR in TEXT_VRS:
            text = text_of(element).casefold()
        else:
            return False
        if any(value in text for value in self.values):
            return True
        if not parts or element.VR not in _FREE_TEXT_VRS or element.tag in _FIXED:
            return False
        spaced = f" {_spaced(text)} "
        return any(f" {part} " in spaced for part in self.parts)


def check(parent: bytes, child: bytes, options: frozenset[Option] = frozenset()) -> None:
    """`child` is `parent` de-identified under the profile and `options`, and nothing else.

    Raises FixInput naming the element (never a value) when one that the profile removes, empties or replaces still has its
    value, at any depth; when a text of the child repeats an identifying value of the parent; when a private element or unknown
    meta information remains; when pixel bytes or anything that the profile keeps differ, or something was added. Raises
    Unreadable when either can't be read. A UID that was replaced is not checked against a key.
    """
    before, after = read(parent), read(child)
    _check_pixels(before, after)
    allowed = may_change(options)
    for keyword, value in before.attributes.items():
        if after.attributes[keyword] != value and keyword not in allowed:
            raise FixInput(f"{keyword} differs, which the profile keeps")
    with reading():
        identifiers = Identifiers.of(parsed(parent))
        object_before, object_after = parsed(parent), parsed(child)
        _check_meta(child, object_after)
        _Comparison(Rules(options), identifiers).compare(object_before, object_after, top=True)
        _check_texts(parsed(child), identifiers)


def _check_pixels(before: Image, after: Image) -> None:
    if before.transfer_syntax != after.transfer_syntax:
        raise FixInput("the transfer syntax differs")
    element, other = before._pixels, after._pixels
    if element is None or other is None:
        if element is not other:
            raise FixInput("PixelData is in one of the two only")
        return
    ours = memoryview(before._data)[element.start : element.end]
    theirs = memoryview(after._data)[other.start : other.end]
    if (element.vr, element.encapsulated) != (other.vr, other.encapsulated) or ours != theirs:
        raise FixInput("PixelData differs")
    if len(after._data) != other.end + (8 if other.encapsulated else 0):
        raise FixInput("an element follows the pixel data")


def _check_meta(child: bytes, dataset: FileDataset) -> None:
    if child[128:132] != b"DICM" or any(child[:128]):
        raise FixInput("the preamble is missing or not empty")
    for tag in dataset.file_meta.keys() - _META_TAGS:
        raise FixInput(f"{name_of(tag)} is in the file meta information")
    if dataset.file_meta.get("MediaStorageSOPInstanceUID") != dataset.get("SOPInstanceUID"):
        raise FixInput("MediaStorageSOPInstanceUID is not SOPInstanceUID")


def _check_texts(dataset: Dataset, identifiers: Identifiers) -> None:
    # The codes of the profile are words that may be a name as well.
    for tag in METHOD_TAGS & dataset.keys():
        if identifiers.repeated_in(dataset[tag], parts=False):
            _repeats(tag)
        del dataset[tag]
    for element in dataset.iterall():
        if identifiers.repeated_in(element):
            _repeats(element.tag)


class _Comparison:
    def __init__(self, rules: Rules, identifiers: Identifiers) -> None:
        self._rules = rules
        self._identifiers = identifiers

    def compare(self, before: Dataset, after: Dataset, *, top: bool = False, graphics: bool = False) -> None:
        own = METHOD_TAGS | {PATIENT_ID, PATIENT_NAME} if top else frozenset[int]()
        for tag in after.keys() - before.keys() - own:
            raise FixInput(f"{name_of(tag)} was added")
        # Before anything is converted, for pydicom may convert others on the way.
        ours, theirs = _raw_values(before), _raw_values(after)
        for tag in list(before.keys()):
            old = before[tag]
            new: DataElement | None = after.get(tag)
            same = new is not None and _same(ours.get(tag), theirs.get(tag), old, new)
            if tag.is_private:
                self._private(after, tag, same)
            elif not (top and tag in METHOD_TAGS) and not (graphics and tag in GRAPHIC_TEXTS and new is None):
                self._element(old, new, same)

    def _private(self, after: Dataset, tag: int, same: bool) -> None:
        if tag not in after:
            return
        if Option.RETAIN_SAFE_PRIVATE not in self._rules.options or not is_safe_element(after, tag):
            raise FixInput(f"the private element {named(tag)} remains")
        if not same:
            raise FixInput(f"the private element {named(tag)} differs")

    def _element(self, old: DataElement, new: DataElement | None, same: bool) -> None:
        tag = old.tag
        action = self._rules.action(tag, old.VR)
        if new is None:
            if action is Action.KEEP and not self._identifiers.repeated_in(old):
                raise FixInput(f"{name_of(tag)} is missing, which the profile keeps")
            return
        if new.is_empty and (action is not Action.KEEP or old.is_empty):
            return
        if old.VR == "SQ":
            self._sequence(action, old, new)
        elif action is Action.KEEP:
            if not same:
                raise FixInput(f"{name_of(tag)} differs, which the profile keeps")
        elif action is Action.UID or old.VR == "UI":
            self._uids(old, new)
        elif action is Action.CLEAN:
            if text_of(new) not in (cleaned(text_of(new), self._identifiers.names), DUMMIES.get(new.VR)):
                _remains(tag)
        elif not _is_dummy(new):
            if same or text_of(old) == text_of(new):
                _remains(tag)
            if action is Action.REMOVE:
                raise FixInput(f"{name_of(tag)} has a value where the profile removes it")

    def _sequence(self, action: Action, old: DataElement, new: DataElement) -> None:
        if action not in (Action.KEEP, Action.UID, Action.CLEAN):
            if any(len(item) for item in new.value):
                _remains(old.tag)
            return
        if len(old.value) != len(new.value):
            raise FixInput(f"{name_of(old.tag)} has another number of items")
        for item, other in zip(old.value, new.value, strict=True):
            self.compare(item, other, graphics=action is Action.CLEAN)

    def _uids(self, old: DataElement, new: DataElement) -> None:
        ours, theirs = uids_of(old), uids_of(new)
        for uid in theirs:
            if not UID(uid).is_valid:
                raise FixInput(f"{name_of(new.tag)} is no UID")
            if uid in ours and not is_registered(uid):
                _remains(old.tag)


def uids_of(element: DataElement) -> list[str]:
    """The UIDs of a UI element that has one or more."""
    value = element.value
    return [str(value)] if isinstance(value, str) else [str(uid) for uid in value or ()]


def is_registered(uid: str) -> bool:
    """Whether PS3.6 registers the UID: one that names a class, a coding scheme, a syntax, and no instance."""
    return bool(UID(uid).name != uid)


def is_safe_element(dataset: Dataset, tag: int) -> bool:
    """Whether a private element is on the standard's list of safe ones, or is the creator of one that is there."""
    group, number = tag >> 16, tag & 0xFFFF
    if 0x10 <= number <= 0xFF:
        block = (
            other for other in list(dataset.keys()) if other >> 16 == group and other >> 8 & 0xFF == number and other != tag
        )
        return any(is_safe_element(dataset, other) for other in block)
    creator = dataset.get(group << 16 | number >> 8)
    return creator is not None and is_safe_private(text_of(creator).strip(), tag)


def _raw_values(dataset: Dataset) -> dict[int, bytes]:
    items = ((tag, dataset.get_item(tag)) for tag in list(dataset.keys()))
    return {tag: item.value or b"" for tag, item in items if isinstance(item, RawDataElement)}


def _same(ours: bytes | None, theirs: bytes | None, old: DataElement, new: DataElement) -> bool:
    if ours is None or theirs is None:  # converted while it was read
        return bool(old.VR == new.VR and text_of(old) == text_of(new))
    return ours == theirs or (len(ours) % 2 == 1 and theirs in (ours + b"\0", ours + b" "))


def _is_dummy(element: DataElement) -> bool:
    return str(DUMMIES.get(element.VR, bytes(8))) == text_of(element)


def _remains(tag: int) -> NoReturn:
    raise FixInput(f"{name_of(tag)} still has a value that the profile removes or replaces")


def _repeats(tag: int) -> NoReturn:
    raise FixInput(f"{name_of(tag)} repeats a value that identifies the patient")
