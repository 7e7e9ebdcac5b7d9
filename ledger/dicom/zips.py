"""A strict reader of zip archives (APPNOTE.TXT 6.3 §4): which entries there are, and the bytes of one.

Some tools go by the central directory at an archive's end, others by the headers before each entry as they come. Whatever
these two could see differently is refused: bytes that belong to no entry, entries that overlap, come twice or are only in one
of the two, headers that contradict each other, deflated data that ends before its entry does, stored data of which only a
signature tells the end. So are encrypted entries, methods other than stored and deflated, archives of several disks, and a
name of a folder that has data.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Final, NamedTuple

from ledger.core.errors import Unreadable
from ledger.dicom.limits import Limits
from ledger.dicom.regular_file import opened

MAGICS: Final = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
"""What an archive starts with: an entry, the end of an empty one, the mark of one that was split."""
_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_END_64, _LOCATOR_64, _DESCRIPTOR = b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08"
_END_HEAD: Final = struct.Struct("<4s4H2IH")
_END_64_HEAD: Final = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_HEAD: Final = struct.Struct("<4sIQI")
_CENTRAL_HEAD: Final = struct.Struct("<4s6H3I5H2I")
_LOCAL_HEAD: Final = struct.Struct("<4s5H3I2H")
_TAIL: Final = _END_HEAD.size + 0xFFFF
_STORED, _DEFLATED = 0, 8
_BEHIND, _UTF8 = 0x0008, 0x0800
_HARMLESS: Final = 0x0006 | _BEHIND | _UTF8  # how hard it was deflated; sizes behind the data; names in UTF-8
_MASKED, _MASKED_SHORT = 0xFFFFFFFF, 0xFFFF
_CHUNK: Final = 1 << 20
_RATIO_FREE: Final = 1 << 20


class Entry(NamedTuple):
    """One entry: its data is `stored` bytes from `start` of the file, and `size` bytes with CRC-32 `crc` when inflated."""

    name: str
    start: int
    stored: int
    size: int
    crc: int
    deflated: bool

    @property
    def is_folder(self) -> bool:
        """A folder's own entry, which has no data."""
        return self.name.endswith("/")


class _Listed(NamedTuple):
    name: bytes
    flags: int
    method: int
    crc: int
    stored: int
    size: int
    offset: int


def entries(path: Path, limits: Limits) -> list[Entry]:
    """The entries in the order of their names. Raises Unreadable for whatever two readers could see differently."""
    with opened(path) as file:
        size = file.seek(0, 2)
        listed, end = _central(file, size, limits)
        if len({one.name for one in listed}) != len(listed):
            raise Unreadable("a zip archive with two entries of one name")
        listed.sort(key=lambda one: one.offset)
        found = []
        at = 0
        for one, following in zip(listed, [*(one.offset for one in listed[1:]), end], strict=False):
            if one.offset != at:
                raise Unreadable("a zip archive whose entries overlap, or with bytes that belong to none")
            found.append(_local(file, one, following))
            at = following
        if at != end:
            raise Unreadable("a zip archive with bytes that belong to no entry")
        return sorted(found)


def content(path: Path, entry: Entry, limits: Limits, length: int | None = None) -> bytes:
    """The first `length` bytes of an entry, inflated, or all of them, whose CRC-32 and size are then checked.

    Raises Unreadable when it is damaged, or asks for more than `limits` allow.
    """
    if entry.size > limits.file_bytes:
        raise Unreadable(f"an entry of {entry.size} bytes: {limits.file_bytes} are allowed")
    if entry.size > max(_RATIO_FREE, limits.archive_ratio * entry.stored):
        raise Unreadable(f"an entry that inflates {entry.stored} bytes to {entry.size}")
    found = bytearray()
    for piece in _pieces(path, entry):
        found += piece
        if length is not None and len(found) >= length:
            return bytes(found[:length])
    return bytes(found)


def check(path: Path, entry: Entry) -> None:
    """Read an entry to its end and keep nothing. Raises Unreadable when it is damaged, or ends before its bytes do."""
    for _ in _pieces(path, entry):
        pass


def appended(data: bytes) -> bool:
    """Whether a zip archive ends with these bytes, whatever they start with: one that a tool would find and unpack."""
    first = max(0, len(data) - _TAIL)
    at = len(data)
    while (at := data.rfind(_END, first, at)) >= 0:  # backwards: the faster one of bytes' two searches
        if len(data) - at >= _END_HEAD.size:
            *_, size, _, _ = _END_HEAD.unpack_from(data, at)
            if data.startswith(_CENTRAL, max(0, at - size)) or data.startswith(_LOCATOR_64, max(0, at - _LOCATOR_HEAD.size)):
                return True
    return False


# ---- the central directory ----------------------------------------------------------------------------------------------


def _central(file: FileIO, size: int, limits: Limits) -> tuple[list[_Listed], int]:
    """The listed entries, and where the directory starts."""
    tail = _bytes(file, max(0, size - _TAIL), min(size, _TAIL))
    base = size - len(tail)
    ends = [at for at in _places(tail, _END) if len(tail) - at >= _END_HEAD.size]
    whole = [at for at in ends if at + _END_HEAD.size + _END_HEAD.unpack_from(tail, at)[-1] == len(tail)]
    if len(whole) != 1 or whole[0] != ends[-1]:
        raise Unreadable(
            "a zip archive that is cut off, or followed by other bytes" if not whole else "a zip archive of two ends"
        )
    (at,) = whole
    _, disk, first_disk, here, count, length, start, _ = _END_HEAD.unpack_from(tail, at)
    end = base + at
    if tail[max(0, at - _LOCATOR_HEAD.size) : at][:4] == _LOCATOR_64:
        _, on_disk, record, disks = _LOCATOR_HEAD.unpack_from(tail, at - _LOCATOR_HEAD.size)
        end = record
        if on_disk or disks > 1 or record + _END_64_HEAD.size + _LOCATOR_HEAD.size > base + at:
            raise Unreadable("a damaged zip archive")
        found = _END_64_HEAD.unpack(_bytes(file, record, _END_64_HEAD.size))
        long = found[6], found[7], found[8], found[9]
        short = ((here, _MASKED_SHORT), (count, _MASKED_SHORT), (length, _MASKED), (start, _MASKED))
        if (
            found[0] != _END_64
            or record + 12 + found[1] + _LOCATOR_HEAD.size != base + at
            or found[4]
            or found[5]
            or any(value not in (other, masked) for (value, masked), other in zip(short, long, strict=True))
            or any(value not in (0, _MASKED_SHORT) for value in (disk, first_disk))
        ):
            raise Unreadable("a damaged zip archive")
        here, count, length, start = long
    elif disk or first_disk:
        raise Unreadable("a zip archive of several disks")
    if count > limits.archive_entries:
        raise Unreadable(f"an archive of {count} entries: {limits.archive_entries} are allowed")
    if here != count or start + length != end or length > limits.file_bytes:
        raise Unreadable("a zip archive whose directory is not where it says")
    directory = _bytes(file, start, length)
    listed = []
    pos = 0
    for _ in range(count):
        one, pos = _listed(directory, pos)
        listed.append(one)
    if pos != length:
        raise Unreadable("a zip archive with bytes that belong to no entry")
    return listed, start


def _listed(directory: bytes, pos: int) -> tuple[_Listed, int]:
    beyond = pos + _CENTRAL_HEAD.size
    if beyond > len(directory) or directory[pos : pos + 4] != _CENTRAL:
        raise Unreadable("a damaged zip archive")
    fields = _CENTRAL_HEAD.unpack_from(directory, pos)
    flags, method, crc, stored, size, name, extra, comment, disk = fields[3], fields[4], *fields[7:14]
    offset = fields[-1]
    end = beyond + name + extra + comment
    if end > len(directory):
        raise Unreadable("a damaged zip archive")
    size, stored, offset = _long((size, stored, offset), directory[beyond + name : beyond + name + extra])
    if disk:
        raise Unreadable("a zip archive of several disks")
    return _Listed(directory[beyond : beyond + name], flags, method, crc, stored, size, offset), end


def _long(values: tuple[int, ...], extra: bytes) -> tuple[int, ...]:
    """The values, those that are masked read from the zip64 extra field (§4.5.3)."""
    if _MASKED not in values:
        return values
    pos = 0
    while pos + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, pos)
        if kind == 1 and 8 * values.count(_MASKED) <= length <= len(extra) - pos - 4:
            longs = (n for (n,) in struct.iter_unpack("<Q", extra[pos + 4 : pos + 4 + length // 8 * 8]))
            return tuple(next(longs) if value == _MASKED else value for value in values)
        pos += 4 + length
    raise Unreadable("a damaged zip archive")


# ---- an entry -------------------------------------------------------------------------------------------------------------


def _local(file: FileIO, one: _Listed, following: int) -> Entry:
    """The entry whose header is at `one.offset`: it must agree with the directory, and end where `following` starts."""
    _, _, flags, method, _, _, crc, stored, size, name, extra = head = _LOCAL_HEAD.unpack(
        _bytes(file, one.offset, _LOCAL_HEAD.size)
    )
    rest = _bytes(file, one.offset + _LOCAL_HEAD.size, name + extra)
    if head[0] != _LOCAL or (rest[:name], flags, method) != (one.name, one.flags, one.method):
        raise Unreadable("a zip archive whose directory and entries contradict each other")
    if flags & ~_HARMLESS or method not in (_STORED, _DEFLATED):
        raise Unreadable("a zip archive with an entry that is encrypted or neither stored nor deflated")
    start = one.offset + _LOCAL_HEAD.size + name + extra
    behind = _bytes(file, start + one.stored, max(0, min(following - start - one.stored, 24)))
    truth = one.crc, one.stored, one.size
    if start + one.stored + len(behind) != following:
        raise Unreadable("a zip archive whose entries overlap, or with bytes that belong to none")
    size, stored = _long((size, stored), rest[name:])
    if flags & _BEHIND:
        # Zeros are the rule before the data; sizes that are known all the same must be right.
        agree = all(value in (0, true) for value, true in zip((crc, stored, size), truth, strict=True))
        agree = agree and behind.removeprefix(_DESCRIPTOR) in _descriptors(*truth)
    else:
        agree = (crc, stored, size) == truth and not behind
    folder = one.name.endswith(b"/")
    if not agree or (folder and (one.size or one.stored > 2)) or (method == _STORED and one.size != one.stored):
        raise Unreadable("a zip archive whose directory and entries contradict each other")
    entry = Entry(
        one.name.decode("utf-8" if flags & _UTF8 else "cp437", "replace"), start, one.stored, one.size, one.crc, bool(method)
    )
    if flags & _BEHIND and method == _STORED and _has_signature(file, entry):
        raise Unreadable("a zip archive with a stored entry whose end only a signature tells, and that has one inside")
    return entry


def _descriptors(crc: int, stored: int, size: int) -> Iterator[bytes]:
    """What may stand behind the data, but for its signature, which may be left out (§4.3.9)."""
    yield struct.pack("<I2Q", crc, stored, size)
    if max(stored, size) <= _MASKED:
        yield struct.pack("<3I", crc, stored, size)


def _has_signature(file: FileIO, entry: Entry) -> bool:
    pos, kept = entry.start, b""
    while pos < entry.start + entry.stored:
        piece = _bytes(file, pos, min(_CHUNK, entry.start + entry.stored - pos))
        if _DESCRIPTOR in kept + piece:
            return True
        pos, kept = pos + len(piece), piece[-3:]
    return False


def _pieces(path: Path, entry: Entry) -> Iterator[bytes]:
    """The entry's bytes, inflated, at most 1 MiB at a time; at the end CRC-32 and sizes have been checked."""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    crc = size = 0
    with opened(path) as file:
        pos, end = entry.start, entry.start + entry.stored
        while pos < end:
            raw = _bytes(file, pos, min(_CHUNK, end - pos))
            pos += len(raw)
            while True:
                try:
                    piece = engine.decompress(raw, _CHUNK) if entry.deflated else raw
                except zlib.error as error:
                    raise Unreadable("a damaged entry of a zip archive") from error
                crc, size = zlib.crc32(piece, crc), size + len(piece)
                if size > entry.size or engine.unused_data:
                    raise Unreadable("an entry whose size is not the one its archive states")
                yield piece
                raw = engine.unconsumed_tail
                if not raw:
                    break
    if size != entry.size or (entry.deflated and not engine.eof):
        raise Unreadable("an entry whose size is not the one its archive states")
    if crc != entry.crc:
        raise Unreadable("a damaged entry of a zip archive")


def _places(data: bytes, wanted: bytes) -> Iterator[int]:
    at = data.find(wanted)
    while at >= 0:
        yield at
        at = data.find(wanted, at + 1)


def _bytes(file: FileIO, start: int, length: int) -> bytes:
    """Exactly these bytes of a file. Raises Unreadable when it has not so many."""
    if start >= 0 and length >= 0 and start < 1 << 62:
        file.seek(start)
        found = file.read(length) if length else b""
        if len(found) == length:
            return found
    raise Unreadable("a zip archive that is cut off, or that points outside itself")
