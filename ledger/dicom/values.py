"""From element bytes to the bound text of each attribute: character sets, VRs, sequences. FORMAT.md §2.2.

Text that the declared character set can't decode is taken byte by byte as ISO 8859-1 (so is text in an unknown set): a damaged
name still binds as what it is, and never merges with another.
"""

from __future__ import annotations

import hashlib
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from ledger.core.attributes import (
    ATTRIBUTES,
    MACROS,
    PER_FRAME_GROUPS,
    SEQUENCES,
    SHARED_GROUPS,
    Member,
    float_text,
    normalised,
    sequence_text,
    without_default,
)
from ledger.core.errors import Unreadable
from ledger.dicom.elements import IMPLICIT_LITTLE, Element, Encoding, Walk, named

CHARACTER_SET: Final = 0x00080005
PHOTOMETRIC: Final = 0x00280004
PIXEL_REPRESENTATION: Final = 0x00280103

TEXT_VRS: Final = frozenset(b"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UN UR UT".split()) | {b""}
_IN_CHARACTER_SET: Final = frozenset(("LO", "PN", "SH"))
_DEFAULTED: Final = frozenset(("RescaleSlope", "RescaleIntercept", "RescaleType", "PixelAspectRatio", "PresentationLUTShape"))
_INTEGERS: Final = {"US": "H", "SS": "h", "UL": "I", "SL": "i"}
_MEMBER_SETS: Final = {keyword: frozenset(m.tag for m in members) for keyword, members in SEQUENCES.items()}
_MACRO_SETS: Final = {tag: frozenset(m.tag for m in members) for tag, (_, members) in MACROS.items()}
_GROUPS: Final = "FunctionalGroups"

WANTED: Final = frozenset(
    {attribute.tag for attribute in ATTRIBUTES} | {PER_FRAME_GROUPS, CHARACTER_SET, PHOTOMETRIC, PIXEL_REPRESENTATION}
)
"""The tags that `bound` needs."""


def ascii_text(data: bytes, element: Element | None) -> str:
    """A value in the default repertoire without padding; empty when the element is missing."""
    return "" if element is None else data[element.start : element.end].rstrip(b" \0").lstrip(b" ").decode("latin-1")


def bound(data: bytes, found: Mapping[int, Element], encoding: Encoding, walk: Walk) -> Mapping[str, str | None]:
    """Keyword -> bound text, or None when absent, for exactly the attributes of list `attributes-1`.

    `found` has the elements of WANTED in `data`. Raises Unreadable when a value can't be read in one way only: a VR that is not
    text where text is bound, a malformed bound sequence, more than one item in a functional group's macro.
    """
    decode = _decoder(ascii_text(data, found.get(CHARACTER_SET)))
    photometric = ascii_text(data, found.get(PHOTOMETRIC))
    reader = _Sequences(data, encoding, walk, decode, _is_signed(data, found, encoding))
    values: dict[str, str | None] = {}
    for attribute in ATTRIBUTES:
        keyword, vr = attribute.keyword, attribute.vr
        element = found.get(attribute.tag)
        if keyword == _GROUPS:
            values[keyword] = reader.functional_groups(element, found.get(PER_FRAME_GROUPS))
        elif element is None:
            values[keyword] = None
        elif vr == "SQ":
            values[keyword] = reader.sequence(keyword, element)
        else:
            value = _text(data, element, attribute.tag, vr, decode)
            values[keyword] = without_default(keyword, value, photometric) if keyword in _DEFAULTED else value
    return MappingProxyType(values)


def _text(data: bytes, element: Element, tag: int, vr: str, decode: Callable[[bytes, bool], str]) -> str | None:
    if element.vr not in TEXT_VRS:
        raise Unreadable(f"{named(tag)} has VR {element.vr.decode('latin-1')}, which is no text")
    value = data[element.start : element.end]
    if vr not in _IN_CHARACTER_SET or (value.isascii() and b"\x1b" not in value):
        return normalised(vr, value.decode("latin-1"))
    return normalised(vr, decode(value, vr == "PN"))


def _is_signed(data: bytes, found: Mapping[int, Element], encoding: Encoding) -> bool:
    element = found.get(PIXEL_REPRESENTATION)
    one = b"\0\1" if encoding.big_endian else b"\1\0"
    return element is not None and data[element.start : element.end] == one


# ---- character sets -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _decoder(character_set: str) -> Callable[[bytes, bool], str]:
    """(value, is a person name) -> text, for a value of SpecificCharacterSet."""
    # Imported here: most objects are ASCII, and pydicom takes longer to import than a thousand of them to read.
    from pydicom import charset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encodings = charset.convert_encodings([name.strip() for name in character_set.split("\\")])
    first = encodings[0]

    def decode(value: bytes, is_name: bool) -> str:
        try:
            if b"\x1b" not in value:
                return value.decode(first)
            # Code extensions (PS3.5 §6.1.2.5): these delimiters switch back to the first character set.
            text = charset.decode_bytes(value, encodings, {0x09, 0x0A, 0x0C, 0x0D, 0x5C} | ({0x5E, 0x3D} if is_name else set()))
        except (UnicodeError, LookupError):
            return value.decode("latin-1")
        return value.decode("latin-1") if "\ufffd" in text else text

    return decode


# ---- sequences ------------------------------------------------------------------------------------------------------


class _Sequences:
    """The bound lines of one object's sequences."""

    def __init__(self, data: bytes, encoding: Encoding, walk: Walk, decode: Callable[[bytes, bool], str], signed: bool) -> None:
        self._data = data
        self._encoding = encoding
        self._walk = walk
        self._decode = decode
        self._signed = signed

    def sequence(self, keyword: str, element: Element) -> str | None:
        members = SEQUENCES[keyword]
        encoding = _inside(element, self._encoding)
        items = self._walk.items(element, self._encoding, _MEMBER_SETS[keyword])
        return sequence_text(
            line for index, item in enumerate(items) for line in self._lines(str(index), members, item, encoding)
        )

    def functional_groups(self, shared: Element | None, per_frame: Element | None) -> str | None:
        if shared is None and per_frame is None:
            return None
        lines: list[tuple[str, str, str | None]] = []
        for element, path in ((shared, "shared"), (per_frame, None)):
            if element is None:
                continue
            encoding = _inside(element, self._encoding)
            items = self._walk.items(element, self._encoding, MACROS)
            if path and len(items) > 1:
                raise Unreadable(f"{named(SHARED_GROUPS)} has {len(items)} items, not one")
            for index, item in enumerate(items):
                for tag, macro in item.items():
                    lines += self._macro(path or str(index), tag, macro, encoding)
        return sequence_text(lines)

    def _macro(self, path: str, tag: int, element: Element, encoding: Encoding) -> Iterator[tuple[str, str, str | None]]:
        keyword, members = MACROS[tag]
        items = self._walk.items(element, encoding, _MACRO_SETS[tag])
        if len(items) > 1:
            raise Unreadable(f"{named(tag)} has {len(items)} items in one functional group, not one")
        for item in items:
            for where, name, value in self._lines(f"{path}.{keyword}", members, item, _inside(element, encoding)):
                yield where, name, without_default(name, value)

    def _lines(
        self, path: str, members: Sequence[Member], item: Mapping[int, Element], encoding: Encoding
    ) -> Iterator[tuple[str, str, str | None]]:
        for member in members:
            element = item.get(member.tag)
            if element is not None:
                yield path, member.keyword, self._value(member, element, item, encoding)

    def _value(self, member: Member, element: Element, item: Mapping[int, Element], encoding: Encoding) -> str | None:
        if member.keyword == "LUTDescriptor":
            numbers = self.descriptor(element, encoding)
            return None if numbers is None else "\\".join(map(str, numbers))
        if member.keyword == "LUTData":
            entries = self._lut_entries(element, item.get(0x00283002), encoding)
            return f"sha256:{hashlib.sha256(entries).hexdigest()}" if entries else None
        if member.vr in _INTEGERS:
            return self._numbers(member.tag, element, _INTEGERS[member.vr], encoding, str)
        if member.vr == "FD":
            return self._numbers(member.tag, element, "d", encoding, float_text)
        value = _text(self._data, element, member.tag, member.vr, self._decode)
        if value is not None and "\n" in value:
            raise Unreadable(f"{named(member.tag)} has a line feed in its value")
        return value

    def _numbers(self, tag: int, element: Element, code: str, encoding: Encoding, text: Callable[..., str]) -> str | None:
        length = element.end - element.start
        count, rest = divmod(length, struct.calcsize("<" + code))
        if rest:
            raise Unreadable(f"{named(tag)} has {length} bytes, which are no whole number of values")
        order = ">" if encoding.big_endian else "<"
        return "\\".join(map(text, struct.unpack_from(f"{order}{count}{code}", self._data, element.start))) or None

    def descriptor(self, element: Element, encoding: Encoding) -> tuple[int, int, int] | None:
        return lut_descriptor(self._data, element, encoding, self._signed)

    def _lut_entries(self, element: Element, descriptor: Element | None, encoding: Encoding) -> bytes:
        if descriptor is None:
            raise Unreadable("a LUT without descriptor")
        numbers = self.descriptor(descriptor, encoding)
        if numbers is None:
            raise Unreadable("a LUT with an empty descriptor")
        return lut_entries(self._data, element, numbers[0], encoding)


def _inside(element: Element, encoding: Encoding) -> Encoding:
    return IMPLICIT_LITTLE if element.vr == b"UN" else encoding


def lut_descriptor(data: bytes, element: Element, encoding: Encoding, signed: bool) -> tuple[int, int, int] | None:
    """(entries, first value mapped, bits) of a LUT descriptor; 0 entries mean 65536; None when empty (PS3.3 §C.7.6.3.1.5).

    The first value mapped is signed if PixelRepresentation is 1, whichever VR (US or SS) is written: transcoders change that.
    Raises Unreadable when it has not three values.
    """
    if element.start == element.end:
        return None
    if element.end - element.start != 6:
        raise Unreadable(f"a LUT descriptor of {element.end - element.start} bytes, not 6")
    order = ">" if encoding.big_endian else "<"
    entries, first, bits = struct.unpack_from(order + ("HhH" if signed else "HHH"), data, element.start)
    return entries or 65536, first, bits


def lut_entries(data: bytes, element: Element, count: int, encoding: Encoding) -> bytes:
    """The entries of a LUT as u16 little endian. `count` bytes (padded to even) are entries of one byte each, else of two.

    Raises Unreadable when the element has neither `count` entries of one byte nor of two.
    """
    value = data[element.start : element.end]
    if len(value) == 2 * count:
        return _words(value) if encoding.big_endian else value
    if len(value) != count + count % 2:
        raise Unreadable(f"a LUT of {len(value)} bytes where the descriptor says {count} entries")
    if encoding.big_endian and element.vr != b"OB":
        value = _words(value)
    widened = bytearray(2 * count)
    widened[::2] = value[:count]
    return bytes(widened)


def _words(value: bytes) -> bytes:
    swapped = bytearray(value)
    swapped[::2], swapped[1::2] = value[1::2], value[::2]
    return bytes(swapped)
