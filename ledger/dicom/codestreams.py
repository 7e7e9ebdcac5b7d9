"""What codestreams say about themselves, read before any decoder sees them, and how fragments make frames.

A decoder is only called for a codestream whose size and sample format fit the data set, so that a few bytes can't ask
for gigabytes. Everything here is plain Python over bytes, and raises Refused for whatever it does not understand.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from ledger.core.errors import Refused
from ledger.dicom.elements import fragments

JPEG, JPEGLS, JPEG2000, HTJ2K, RLE, VIDEO = "JPEG", "JPEGLS", "JPEG2000", "HTJ2K", "RLE", "VIDEO"
_STARTS: Final = {JPEG: b"\xff\xd8", JPEGLS: b"\xff\xd8", JPEG2000: b"\xff\x4f\xff\x51", HTJ2K: b"\xff\x4f\xff\x51"}
_END: Final = b"\xff\xd9"
_HIERARCHICAL: Final = frozenset((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF))
_FRAME_HEADERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_NEXT_MARKER: Final = {JPEG: re.compile(rb"\xff[^\x00\xd0-\xd7\xff]"), JPEGLS: re.compile(rb"\xff[\x80-\xfe]")}


@dataclass(frozen=True)
class Codestream:
    """A codestream's own words. `lossless`: decoding gives back what was encoded, by every correct decoder alike."""

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool
    lossless: bool
    subsampled: bool
    component_transform: bool


def frame_streams(
    data: bytes, start: int, end: int, count: int, family: str, offsets: bytes = b"", lengths: bytes = b""
) -> list[bytes]:
    """The codestream of each of `count` frames, FORMAT.md §1.3: fragments joined, padding (00, ff) after the end stripped.

    Fragments belong to frames one to one, or all to the only frame, or a frame starts wherever a fragment starts with the
    family's start marker; a video is one codestream. An offset table is not needed, but one that contradicts this is refused,
    as readers that follow it would see other frames; `offsets` and `lengths` are the values of ExtendedOffsetTable and
    ExtendedOffsetTableLengths, which only frames of one fragment each may have (PS3.3 §C.7.6.3.1.8).
    """
    items = fragments(data, start, end)
    if not items:
        raise Refused("encapsulated pixel data without an offset table item")
    parts = items[1:]
    if not parts:
        raise Refused("encapsulated pixel data without fragments")
    if family == VIDEO or count == 1:
        firsts = [0]
    elif len(parts) == count:
        firsts = list(range(count))
    else:
        marker = _STARTS.get(family)
        firsts = [i for i, (at, _) in enumerate(parts) if marker and data.startswith(marker, at)]
        if len(firsts) != count or firsts[0]:
            raise Refused(f"{len(parts)} fragments that don't make {count} frames")
    _check_offsets(data, items, firsts, offsets)
    _check_extended(data, parts, firsts, offsets, lengths)
    bounds = [*firsts, len(parts)]
    streams = (b"".join(data[low:high] for low, high in parts[first:beyond]) for first, beyond in pairwise(bounds))
    return [_stripped(stream, family) for stream in streams]


def _check_offsets(data: bytes, items: list[tuple[int, int]], firsts: list[int], extended: bytes) -> None:
    origin = items[1][0] - 8
    found = [items[1 + first][0] - 8 - origin for first in firsts]
    low, high = items[0]
    for table, code in ((data[low:high], "I"), (extended, "Q")):
        if table and (
            len(table) % struct.calcsize("<" + code) or [n for (n,) in struct.iter_unpack("<" + code, table)] != found
        ):
            raise Refused("the offset table contradicts the fragments")


def _check_extended(data: bytes, parts: list[tuple[int, int]], firsts: list[int], offsets: bytes, lengths: bytes) -> None:
    if not offsets and not lengths:
        return
    if len(parts) != len(firsts):
        raise Refused("an extended offset table beside frames of several fragments")
    if lengths:
        said = [n for (n,) in struct.iter_unpack("<Q", lengths)] if len(lengths) % 8 == 0 else []
        # A frame's length is given with or without the byte that pads its fragment to even length: tools differ.
        if len(said) != len(parts) or any(
            n != high - low and not (n == high - low - 1 and data[high - 1] == 0)
            for n, (low, high) in zip(said, parts, strict=True)
        ):
            raise Refused("the extended offset table's lengths contradict the fragments")


def _stripped(stream: bytes, family: str) -> bytes:
    """Without padding. DCMTK pads JPEG-LS with one byte that may be any."""
    if family in _STARTS and not stream.endswith(_END):
        bare = stream.rstrip(b"\0\xff")
        if bare.endswith(_END):
            return bare
        if stream[:-1].endswith(_END):
            return stream[:-1]
    return stream


def describe(stream: bytes, family: str) -> Codestream:
    """Read the headers of one codestream of JPEG, JPEGLS, JPEG2000 or HTJ2K. Raises Refused when they are not understood."""
    if not stream.startswith(_STARTS[family]):
        raise Refused(f"a {family} codestream that does not start with its marker")
    if not stream.endswith(_END):
        raise Refused(f"a {family} codestream that does not end with its marker")
    try:
        return _jpeg(stream, family) if family in (JPEG, JPEGLS) else _jpeg2000(stream)
    except (struct.error, IndexError, ValueError) as error:
        raise Refused(f"a {family} codestream whose headers are cut off") from error


# ---- JPEG (ITU-T T.81) and JPEG-LS (T.87) ----------------------------------------------------------------------------


def _segments(stream: bytes, family: str) -> Iterator[tuple[int, bytes, int]]:
    """(marker, payload, end) of each marker segment; entropy-coded data after a scan header is stepped over."""
    pos = 2
    while True:
        if stream[pos] != 0xFF:
            raise Refused(f"a {family} codestream without a marker at byte {pos}")
        while stream[pos + 1] == 0xFF:
            pos += 1
        marker = stream[pos + 1]
        pos += 2
        if marker == 0xD9:
            if pos != len(stream):
                raise Refused(f"{len(stream) - pos} bytes after the end of a {family} codestream")
            return
        (length,) = struct.unpack_from(">H", stream, pos)
        if length < 2 or pos + length > len(stream):
            raise Refused(f"a {family} marker segment at byte {pos} that runs over the end")
        yield marker, stream[pos + 2 : pos + length], pos + length
        pos += length
        if marker == 0xDA:
            found = _NEXT_MARKER[family].search(stream, pos)
            if found is None:
                raise Refused(f"a {family} scan without an end")
            pos = found.start()


def _jpeg(stream: bytes, family: str) -> Codestream:
    frame: tuple[int, bytes] | None = None
    exact, scans = True, 0
    for marker, payload, _ in _segments(stream, family):
        if marker in _FRAME_HEADERS:
            if frame is not None or marker in _HIERARCHICAL:
                raise Refused(f"a {family} codestream of more than one frame")
            frame = marker, payload
        elif marker == 0xDA:
            scans += 1
            # The last three bytes: predictor or NEAR, interleave or Se, point transform (all lossless only when 0).
            near, _, low = payload[-3:]
            exact = exact and low & 0x0F == 0 and (family == JPEG or near == 0)
            if family == JPEGLS and any(payload[2 : 1 + 2 * payload[0] : 2]):
                raise Refused("a JPEGLS codestream with mapping tables")
        elif family == JPEGLS and marker == 0xE8 and payload[:4] == b"mrfx" and payload[4:5] not in (b"", b"\0"):
            raise Refused("a JPEGLS codestream with a colour transform")
    if frame is None or not scans:
        raise Refused(f"a {family} codestream without frame or scan header")
    marker, payload = frame
    if (marker == 0xF7) != (family == JPEGLS):
        raise Refused(f"a {family} codestream with frame header ff{marker:02x}")
    precision, rows, columns, components = struct.unpack_from(">BHHB", payload)
    factors = {payload[7 + 3 * component] for component in range(components)}
    lossless = exact and marker in (0xC3, 0xF7)
    return Codestream(rows, columns, components, precision, False, lossless, len(factors) > 1, False)


def with_full_scans(stream: bytes) -> bytes:
    """A baseline or extended sequential JPEG codestream whose scan headers say Ss = 0 and Se = 63, as T.81 §B.2.3 demands.

    Some encoders write Se = 0, which means nothing in these modes but makes a strict decoder give up.
    """
    patched = bytearray(stream)
    sequential = False
    for marker, _, end in _segments(stream, JPEG):
        sequential = sequential or marker in (0xC0, 0xC1)
        if marker == 0xDA and sequential:
            patched[end - 3 : end - 1] = b"\0\x3f"
    return bytes(patched)


# ---- JPEG 2000 and HTJ2K (ITU-T T.800, T.814) -------------------------------------------------------------------------

_NO_PAYLOAD: Final = frozenset(range(0x30, 0x40))


def _jpeg2000(stream: bytes) -> Codestream:
    _, x1, y1, x0, y0, *_, components = struct.unpack_from(">H8IH", stream, 6)
    formats = {stream[42 + 3 * c : 45 + 3 * c] for c in range(components)}
    if len(formats) != 1:
        raise Refused("a JPEG 2000 codestream whose components differ in format")
    depth, dx, dy = formats.pop()
    reversible, transform = _coding(stream, components)
    return Codestream(
        y1 - y0, x1 - x0, components, (depth & 0x7F) + 1, depth >= 0x80, reversible, (dx, dy) != (1, 1), transform
    )


def _coding(stream: bytes, components: int) -> tuple[bool, bool]:
    """(every tile and component is coded with the reversible 5/3 wavelet, some tile uses a component transform)."""
    reversible, transform, seen = True, False, False
    pos = 2
    part_start = part_length = 0
    while True:
        (marker,) = struct.unpack_from(">H", stream, pos)
        if marker == 0xFFD9:
            if pos + 2 != len(stream):
                raise Refused(f"{len(stream) - pos - 2} bytes after the end of a JPEG 2000 codestream")
            break
        if marker == 0xFF93:
            if not part_length:
                break  # the last tile-part reaches to the end marker, which is checked
            if part_start + part_length <= pos:
                raise Refused(f"a JPEG 2000 tile-part at byte {part_start} of {part_length} bytes")
            pos = part_start + part_length
            continue
        if marker < 0xFF00 or marker & 0xFF in _NO_PAYLOAD:
            raise Refused(f"a JPEG 2000 codestream without a marker segment at byte {pos}")
        (length,) = struct.unpack_from(">H", stream, pos + 2)
        if marker == 0xFF90:
            part_start = pos
            (part_length,) = struct.unpack_from(">I", stream, pos + 6)
        elif marker == 0xFF52:
            seen = True
            transform = transform or stream[pos + 8] != 0
            reversible = reversible and stream[pos + 13] == 1
        elif marker == 0xFF53:
            reversible = reversible and stream[pos + 4 + (1 if components < 257 else 2) + 5] == 1
        if length < 2:
            raise Refused(f"a JPEG 2000 marker segment at byte {pos} of {length} bytes")
        pos += 2 + length
    if not seen:
        raise Refused("a JPEG 2000 codestream without coding style")
    return reversible, transform
