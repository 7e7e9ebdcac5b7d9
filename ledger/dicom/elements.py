"""A strict reader of DICOM's element structure: PS3.5 §7 and PS3.10 §7.1. It finds where values are; it converts none.

Two readers that see different attributes in one file would be a hole in every proof, so whatever could be read in two ways is
refused: tags that occur twice or out of order, lengths that run over the end, bytes left over at the end, unknown VRs, wrong
delimiters, a wrong meta group length, group 0002 or 0000 inside the data set. And what makes known readers switch or lose step
in the middle: an implicit data set, or an item with VR UN, whose first element looks explicit; a first element of a group above
00ff, which looks like the other byte order; a group length of other than 4 bytes; an undefined length where PS3.6 has no
sequence, or under VR UN in big endian; a length of 13, which GDCM takes for 10; nested sequences and items that run over what
holds them, wherever they are.

Leniencies, each harmless because no reader draws a different value from it (docs/transcoding.md has the files): a missing meta
group length (0002,0000); other odd lengths; any content of the 128-byte preamble; objects without preamble and meta
information, read as little or big endian from their first element; retired group length elements, whose value is not checked.
What stands in values of VR UN, or of another VR than SQ, with a defined length is not walked: it is bytes to every reader.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ledger.core.errors import Unreadable
from ledger.dicom.limits import Limits

PIXEL_DATA: Final = 0x7FE00010
UNDEFINED: Final = 0xFFFFFFFF
_LAST_META_TAG: Final = 0x0003FFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_ITEM_BYTES: Final = b"\xfe\xff\x00\xe0"
_GDCM_LENGTH: Final = 13
_SHORT, _LONG, _SEQUENCE = 1, 2, 3
_UID: Final = re.compile("[0-9.]{1,64}")
_META_VRS: Final = {0x0000: b"UL", 0x0002: b"UI", 0x0003: b"UI", 0x0010: b"UI"}

_FORMS: Final = dict.fromkeys(
    (b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US").split(), _SHORT
) | dict.fromkeys(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split(), _LONG)
_FORMS[b"SQ"] = _SEQUENCE


@dataclass(frozen=True, slots=True)
class Encoding:
    """How elements are written: VR in the file or from the dictionary, and the byte order."""

    implicit: bool
    big_endian: bool


IMPLICIT_LITTLE: Final = Encoding(True, False)
EXPLICIT_LITTLE: Final = Encoding(False, False)
EXPLICIT_BIG: Final = Encoding(False, True)


class Element(NamedTuple):
    """Where a value lies: bytes [start, end) of the object; the VR as written (empty when implicit).

    For an undefined length the range ends before the sequence delimiter, and `encapsulated` marks a pixel element of that kind.
    """

    vr: bytes
    start: int
    end: int
    encapsulated: bool = False


class Meta(NamedTuple):
    """The transfer syntax UID of the file meta information, the offset of the data set, and the SOP class and instance UID that
    the file meta information names."""

    transfer_syntax: str
    offset: int
    storage_class: str
    instance: str


def named(tag: int) -> str:
    """A tag as PS3.6 writes it: `(0010,0020)`."""
    return f"({tag >> 16:04x},{tag & 0xFFFF:04x})"


def _head(encoding: Encoding) -> tuple[Callable[..., tuple[Any, ...]], Callable[..., tuple[Any, ...]]]:
    order = ">" if encoding.big_endian else "<"
    return struct.Struct(order + ("HHI" if encoding.implicit else "HH2sH")).unpack_from, struct.Struct(order + "I").unpack_from


_HEADS: Final = {encoding: _head(encoding) for encoding in (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG)}
_TAG_LENGTH: Final = {False: struct.Struct("<HHI").unpack_from, True: struct.Struct(">HHI").unpack_from}


class Walk:
    """One strict walk over the bytes of an object; counts what it walks against `limits`. Raises Unreadable, never else."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        self._data = data
        self._limits = limits
        self._left = limits.elements
        self._nested = True

    def elements(self, start: int, end: int, encoding: Encoding, wanted: Collection[int]) -> dict[int, Element]:
        """The wanted elements of the data set in bytes [start, end), which must hold exactly that."""
        if end - start >= 2 and self._data[start if encoding.big_endian else start + 1]:
            raise Unreadable(f"the first element, at byte {start}, is of a group above 00ff")
        if encoding.implicit and _looks_explicit(self._data, start):
            raise Unreadable(
                f"the first element, at byte {start}, is implicit by its transfer syntax and explicit by its looks"
            )
        return self._elements(start, end, encoding, wanted, 0, False, _LAST_META_TAG)[0]

    def items(self, element: Element, encoding: Encoding, wanted: Collection[int]) -> list[dict[int, Element]]:
        """The wanted elements of each item of a sequence that `elements` or `items` found; one with VR UN is implicit little
        endian (PS3.5 §6.2.2)."""
        unknown = element.vr == b"UN"
        self._nested = unknown  # what stands in any other was walked when it was found
        if unknown:
            encoding = _in_unknown(encoding)
        elif element.vr not in (b"SQ", b""):
            raise Unreadable(f"a sequence has VR {_vr_text(element.vr)}")
        found: list[dict[int, Element]] = []
        self._items(element.start, element.end, encoding, wanted, 1, False, found, unknown=unknown)
        return found

    def _elements(
        self, pos: int, end: int, encoding: Encoding, wanted: Collection[int], depth: int, delimited: bool, last: int = -1
    ) -> tuple[dict[int, Element], int]:
        data, implicit = self._data, encoding.implicit
        head, long_length = _HEADS[encoding]
        forms = _FORMS
        found: dict[int, Element] = {}
        for count in range(self._left):
            if pos >= end:
                if delimited or pos > end:
                    raise Unreadable(f"the item that ends at byte {end} has no delimiter")
                self._left -= count
                return found, pos
            if end - pos < 8:
                raise Unreadable(f"{end - pos} trailing bytes at byte {pos}")
            if implicit:
                group, number, length = head(data, pos)
                vr, form = b"", None
                start = pos + 8
            else:
                group, number, vr, length = head(data, pos)
                start = pos + 8
                form = forms.get(vr)
                if form == _SHORT:
                    pass
                elif form is not None:
                    if length or end - pos < 12:
                        raise Unreadable(f"a malformed element header at byte {pos}")
                    (length,) = long_length(data, start)
                    start += 4
                elif group != 0xFFFE:
                    raise Unreadable(f"{named(group << 16 | number)} at byte {pos} has the unknown VR {_vr_text(vr)}")
            tag = group << 16 | number
            if group == 0xFFFE:
                if tag == _ITEM_END and delimited and data[pos + 4 : pos + 8] == b"\0\0\0\0":
                    self._left -= count
                    return found, pos + 8
                raise Unreadable(f"a misplaced delimiter {named(tag)} at byte {pos}")
            if tag <= last:
                raise Unreadable(f"{named(tag)} at byte {pos} {_misplaced(tag, last)}")
            last = tag
            if length != UNDEFINED:
                pos = start + length
                if pos > end:
                    raise Unreadable(f"{named(tag)} at byte {start} says {length} bytes where {end - start} are left")
                if length == _GDCM_LENGTH or (not number and length != 4):
                    raise Unreadable(f"{named(tag)} at byte {start} has {length} bytes")
                if (form == _SEQUENCE or (implicit and data.startswith(_ITEM_BYTES, start))) and self._nested:
                    self._items(start, pos, encoding, (), depth + 1, False)
                if tag in wanted:
                    found[tag] = Element(vr, start, pos)
                continue
            if tag == PIXEL_DATA:
                if encoding != EXPLICIT_LITTLE or vr not in (b"OB", b"OW"):
                    raise Unreadable("encapsulated pixel data outside an explicit little endian data set")
                stop = self._fragments(start, end)
            elif vr == b"SQ" or ((implicit or vr == b"UN") and _may_be_sequence(tag)):
                unknown = vr == b"UN"
                inner = _in_unknown(encoding) if unknown else encoding
                stop = self._items(start, end, inner, (), depth + 1, True, unknown=unknown)
            else:
                raise Unreadable(f"{named(tag)} with VR {_vr_text(vr)} has an undefined length")
            if tag in wanted:
                found[tag] = Element(vr, start, stop, tag == PIXEL_DATA)
            pos = stop + 8
        raise Unreadable(f"more than {self._limits.elements} elements")

    def _items(
        self,
        pos: int,
        end: int,
        encoding: Encoding,
        wanted: Collection[int],
        depth: int,
        delimited: bool,
        found: list[dict[int, Element]] | None = None,
        *,
        unknown: bool = False,
    ) -> int:
        # Where the items end: at the sequence delimiter's offset, or at `end` for a defined length. `unknown`: VR UN, in which
        # readers look at each item's first element for how it is encoded.
        if depth > self._limits.depth:
            raise Unreadable(f"sequences nested deeper than {self._limits.depth}")
        head = _TAG_LENGTH[encoding.big_endian]
        while True:
            if pos == end and not delimited:
                return pos
            if end - pos < 8:
                raise Unreadable(f"the sequence that ends at byte {end} is cut off")
            group, number, length = head(self._data, pos)
            tag = group << 16 | number
            if tag == _SEQUENCE_END and delimited and length == 0:
                return pos
            if tag != _ITEM:
                raise Unreadable(f"{named(tag)} at byte {pos} where an item is expected")
            self._left -= 1
            pos += 8
            if unknown and length and _looks_explicit(self._data, pos):
                raise Unreadable(f"an item at byte {pos} is implicit by its VR UN and explicit by its looks")
            if length == UNDEFINED:
                item, pos = self._elements(pos, end, encoding, wanted, depth, True)
            else:
                if length > end - pos:
                    raise Unreadable(f"an item at byte {pos} says {length} bytes where {end - pos} are left")
                item, pos = self._elements(pos, pos + length, encoding, wanted, depth, False)
            if found is not None:
                found.append(item)

    def _fragments(self, pos: int, end: int) -> int:
        for fragment in fragments(self._data, pos, end):
            pos = fragment[1]
        if self._data[pos : pos + 8] != b"\xfe\xff\xdd\xe0\0\0\0\0":
            raise Unreadable(f"encapsulated pixel data without a sequence delimiter at byte {pos}")
        return pos


def fragments(data: bytes, pos: int, end: int) -> list[tuple[int, int]]:
    """The (start, end) of each item of encapsulated pixel data from `pos`, the offset table's first (PS3.5 §A.4).

    Stops before the first thing that is not an item. Raises Unreadable for an item that runs over `end`.
    """
    found = []
    while data[pos : pos + 4] == b"\xfe\xff\x00\xe0" and end - pos >= 8:
        (length,) = struct.unpack_from("<I", data, pos + 4)
        pos += 8
        if length > end - pos:
            raise Unreadable(f"a fragment at byte {pos} says {length} bytes where {end - pos} are left")
        found.append((pos, pos + length))
        pos += length
    return found


def is_dicom_file(start: bytes) -> bool:
    """Whether bytes that start so are said to be a DICOM file: `DICM` after the preamble (PS3.10 §7.1)."""
    return start[128:132] == b"DICM"


def read_meta(data: bytes) -> Meta | None:
    """The file meta information (PS3.10 §7.1), with or without preamble; None when the object has none. Raises Unreadable."""
    if is_dicom_file(data):
        start = 132
    elif data[:2] == b"\x02\x00":
        start = 0
    else:
        return None
    pos, last, stated, syntax, storage_class, instance = start, -1, None, "", "", ""
    while data[pos : pos + 2] == b"\x02\x00":
        if len(data) - pos < 12:
            raise Unreadable("the file meta information is cut off")
        _, number, vr, length = struct.unpack_from("<HH2sH", data, pos)
        form = _FORMS.get(vr)
        value = pos + 8
        if form in (_LONG, _SEQUENCE):
            (length,) = struct.unpack_from("<I", data, value)
            value += 4
        wrong = _META_VRS.get(number, vr) != vr
        if form is None or wrong or number <= last or length > len(data) - value:
            raise Unreadable(f"(0002,{number:04x}) at byte {pos} of the file meta information is malformed")
        last, pos = number, value + length
        if number == 0:
            if length != 4:
                raise Unreadable(f"the meta group length has {length} bytes, not 4")
            stated = pos + struct.unpack_from("<I", data, value)[0]
        elif number == 0x02:
            storage_class = data[value:pos].rstrip(b"\0 ").decode("latin-1")
        elif number == 0x03:
            instance = data[value:pos].rstrip(b"\0 ").decode("latin-1")
        elif number == 0x10:
            syntax = data[value:pos].rstrip(b"\0 ").decode("latin-1")
    if stated is not None and stated != pos:
        raise Unreadable(f"the file meta information ends at byte {pos}, not {stated} as its group length says")
    if not syntax:
        raise Unreadable("the file meta information names no transfer syntax")
    if not _UID.fullmatch(syntax):
        raise Unreadable("the file meta information names a transfer syntax that is no UID")
    return Meta(syntax, pos, storage_class, instance)


def looks_like_data_set(start: bytes, size: int) -> bool:
    """Whether an object of `size` bytes without `DICM` that starts so is one that lenient readers would open all the same.

    Such are: group 0002 or any other up to 00ff in either byte order with a VR; a command set; and without a VR a first
    element of groups 0004 to 0028 that fits, and is followed by a greater tag or by nothing.
    """
    if len(start) < 8:
        return False
    if start[4:6] in _FORMS and (start[0] == 0) != (start[1] == 0):
        return True
    group, number, length = struct.unpack_from("<HHI", start)
    if group == 0:
        return bool(number == 0 and length == 4)
    if not (group in (0x0002, 0x0004) or (group & 7 == 0 and 0x0008 <= group <= 0x0028)):
        return False
    if length == UNDEFINED:
        return True
    beyond = 8 + length
    if beyond > size:
        return False
    following = start[beyond : beyond + 4]
    if len(following) < 4:
        return True
    next_group, next_number = struct.unpack("<HH", following)
    return bool((group, number) < (next_group, next_number) and next_group <= PIXEL_DATA >> 16)


def guessed_encoding(data: bytes) -> Encoding | None:
    """The encoding of an object without meta information, from its first element, which must be of group 0008; else None."""
    explicit = data[4:6] in _FORMS
    if data[:2] == b"\x08\x00":
        return EXPLICIT_LITTLE if explicit else IMPLICIT_LITTLE
    if data[:2] == b"\x00\x08" and explicit:
        return EXPLICIT_BIG
    return None


def _looks_explicit(data: bytes, pos: int) -> bool:
    # The very test by which pydicom and others take an element for explicit: two capitals where its VR would be.
    return all(0x40 < byte < 0x5B for byte in data[pos + 4 : pos + 6]) and len(data) >= pos + 6


def _in_unknown(encoding: Encoding) -> Encoding:
    if encoding.big_endian:
        raise Unreadable("a sequence with VR UN in a big endian data set")
    return IMPLICIT_LITTLE


def _may_be_sequence(tag: int) -> bool:
    if tag >> 16 & 1:
        return True
    # Imported here: few objects have such an element, and pydicom takes longer to import than a thousand of them to read.
    from pydicom.datadict import dictionary_VR

    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return True


def _vr_text(vr: bytes) -> str:
    return repr(vr.decode("latin-1"))


def _misplaced(tag: int, last: int) -> str:
    if last == _LAST_META_TAG:
        return "does not belong in a data set"
    return "occurs twice" if tag == last else f"comes after {named(last)}"
