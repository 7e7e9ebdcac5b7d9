"""Zip archives that two tools would unpack differently, built byte by byte: refused. Those that everyone writes: read."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ledger.core.errors import Unreadable
from ledger.dicom import Limits, find_images
from ledger.dicom.zips import appended, check, content, entries

LIMITS = Limits()
SIGNATURE = b"PK\x07\x08"


@dataclass(frozen=True)
class Piece:
    """An entry as it is written: what the header before it says, and what the directory says where that differs."""

    name: bytes = b"a.dcm"
    data: bytes = b"0123456789"
    method: int = 0
    flags: int = 0
    local_name: bytes | None = None
    local_method: int | None = None
    local_flags: int | None = None
    local_numbers: tuple[int, int, int] | None = None
    descriptor: bytes | None = None
    slack: bytes = b""
    before: bytes = b""
    listed: bool = True
    size: int | None = None
    crc: int | None = None
    extra: bytes = b""
    local_extra: bytes = b""
    disk: int = 0

    @property
    def raw(self) -> bytes:
        if not self.method:
            return self.data + self.slack
        engine = zlib.compressobj(wbits=-15)
        return engine.compress(self.data) + engine.flush() + self.slack

    @property
    def numbers(self) -> tuple[int, int, int]:
        return (
            zlib.crc32(self.data) if self.crc is None else self.crc,
            len(self.raw),
            len(self.data) if self.size is None else self.size,
        )


def local(piece: Piece) -> bytes:
    name = piece.name if piece.local_name is None else piece.local_name
    flags = piece.flags if piece.local_flags is None else piece.local_flags
    method = piece.method if piece.local_method is None else piece.local_method
    numbers = piece.local_numbers if piece.local_numbers is not None else (0, 0, 0) if piece.flags & 8 else piece.numbers
    head = struct.pack("<4s5H3I2H", b"PK\3\4", 20, flags, method, 0, 0, *numbers, len(name), len(piece.local_extra))
    behind = piece.descriptor if piece.descriptor is not None else b""
    if piece.flags & 8 and piece.descriptor is None:
        behind = SIGNATURE + struct.pack("<3I", *piece.numbers)
    return head + name + piece.local_extra + piece.raw + behind


def archive(
    *pieces: Piece,
    comment: bytes = b"",
    before_directory: bytes = b"",
    after: bytes = b"",
    count: int | None = None,
    shift: int = 0,
) -> bytes:
    body, directory = b"", b""
    for piece in pieces:
        body += piece.before
        if piece.listed:
            numbers = (*piece.numbers, len(piece.name), len(piece.extra), 0, piece.disk, 0)
            head = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, piece.flags, piece.method, 0, 0, *numbers, 0, len(body))
            directory += head + piece.name + piece.extra
        body += local(piece)
    body += before_directory
    number = sum(piece.listed for piece in pieces) if count is None else count
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, number, number, len(directory), len(body) + shift, len(comment))
    return body + directory + end + comment + after


def listed(tmp_path: Path, data: bytes, limits: Limits = LIMITS) -> dict[str, bytes]:
    path = tmp_path / "a.zip"
    path.write_bytes(data)
    found = entries(path, limits)
    return {entry.name: content(path, entry, limits) for entry in found}


A, B = Piece(), Piece(b"b.dcm", b"bcdef" * 99, method=8)


def test_what_everyone_writes_is_read(tmp_path: Path) -> None:
    expected = {"a.dcm": A.data, "b.dcm": B.data}
    assert listed(tmp_path, archive(A, B)) == expected
    assert listed(tmp_path, archive(B, A, comment=b"a comment")) == expected
    assert listed(tmp_path, archive(Piece(b"d/", b""), A, B)) == {**expected, "d/": b""}
    assert listed(tmp_path, archive()) == {}
    assert listed(tmp_path, archive(Piece(data=b""))) == {"a.dcm": b""}
    assert listed(tmp_path, archive(Piece("\u00e4".encode(), flags=0x800))) == {"\u00e4": A.data}
    assert listed(tmp_path, archive(Piece(b"\x84"))) == {"\u00e4": A.data}
    for behind in (b"", SIGNATURE):
        for layout in ("<3I", "<I2Q"):
            for piece in (A, B):
                written = replace(piece, flags=8, descriptor=behind + struct.pack(layout, *piece.numbers))
                assert listed(tmp_path, archive(written, replace(A, name=b"c"))) == {
                    written.name.decode(): piece.data,
                    "c": A.data,
                }
    assert listed(tmp_path, archive(replace(B, flags=8, local_numbers=B.numbers))) == {"b.dcm": B.data}
    long = struct.pack("<2H2Q", 1, 16, len(A.data), len(A.data))
    masked = replace(A, local_numbers=(A.numbers[0], 0xFFFFFFFF, 0xFFFFFFFF), local_extra=b"xx\1\0y" + long)
    assert listed(tmp_path, archive(masked)) == {"a.dcm": A.data}


class Unseekable(io.RawIOBase):
    """Where zipfile writes sizes behind the data."""

    def __init__(self) -> None:
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.written += bytes(data)  # type: ignore[call-overload]
        return len(bytes(data))  # type: ignore[call-overload]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("forced", [False, True])
def test_what_pythons_zipfile_writes_is_read(tmp_path: Path, method: int, forced: bool) -> None:
    seekable, stream = io.BytesIO(), Unseekable()
    for target in (seekable, stream):
        with zipfile.ZipFile(target, "w", method) as file:  # type: ignore[call-overload]
            for name in ("a", "\u00fc"):
                with file.open(name, "w", force_zip64=forced) as entry:
                    entry.write(name.encode() * 9999)
    for data in (seekable.getvalue(), stream.written):
        assert listed(tmp_path, data) == {"a": b"a" * 9999, "\u00fc": "\u00fc".encode() * 9999}


def test_an_archive_of_many_entries_has_a_long_directory(tmp_path: Path) -> None:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        for number in range(66000):
            file.writestr(str(number), b"")
    (tmp_path / "many.zip").write_bytes(written.getvalue())
    assert len(entries(tmp_path / "many.zip", LIMITS)) == 66000
    with pytest.raises(Unreadable, match="66000 entries"):
        entries(tmp_path / "many.zip", Limits(archive_entries=65999))
    data = written.getvalue()
    at = data.rindex(b"PK\6\6")
    for place in (4, 16, 20, 24, 32, 40, 48):
        (tmp_path / "many.zip").write_bytes(data[: at + place] + bytes([data[at + place] ^ 1]) + data[at + place + 1 :])
        with pytest.raises(Unreadable):
            entries(tmp_path / "many.zip", LIMITS)


def test_what_info_zip_and_other_tools_write_is_read(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.txt").write_bytes(b"text" * 999)
    commands = {
        "zip": ["zip", "-qr", "out.zip", "d"],
        "bsdtar": ["bsdtar", "-acf", "out.zip", "d"],
        "7z": ["7z", "a", "out.zip", "d"],
    }
    commands["jar"] = ["jar", "cfM", "out.zip", "d"]
    for tool, command in commands.items():
        if shutil.which(tool) is None:
            continue
        (tmp_path / "out.zip").unlink(missing_ok=True)
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        assert "d/a.txt" in {entry.name for entry in entries(tmp_path / "out.zip", LIMITS)}, tool
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as file:
        file.write(tmp_path / "d", "d")
        file.write(tmp_path / "d" / "a.txt", "d/a.txt")
    assert [entry.is_folder for entry in entries(tmp_path / "out.zip", LIMITS)] == [True, False]


HIDDEN = Piece(b"evil.dcm", b"evil", listed=False)
REFUSED = {
    "an entry that the directory does not have, first": (archive(HIDDEN, A), "belong to none"),
    "an entry that the directory does not have, between": (archive(A, HIDDEN, B), "belong to none"),
    "an entry that the directory does not have, last": (archive(A, HIDDEN), "belong to none"),
    "an entry that the directory does not have, alone": (archive(HIDDEN), "belong to no entry"),
    "bytes before the first entry": (archive(replace(A, before=b"#!/bin/sh\n")), "belong to none"),
    "a byte between entries": (archive(A, replace(B, before=b"\0")), "contradict"),
    "bytes before the directory": (archive(A, before_directory=b"\0" * 30), "belong to none"),
    "bytes after the end": (archive(A, after=b"\0"), "followed by other bytes"),
    "another archive after the end": (archive(A) + archive(B), "belong to none|not where it says"),
    "a directory that is elsewhere": (archive(A, shift=1), "not where it says"),
    "a second end in the comment": (archive(A, comment=archive(B)), "two ends|not where it says"),
    "an end whose comment is an end": (archive(A, comment=archive()), "two ends"),
    "two entries of one name": (archive(A, A), "two entries of one name"),
    "an entry that is listed twice": (archive(A, count=2), "damaged"),
    "fewer entries than are listed": (archive(A, B, count=1), "belong to no entry"),
    "another name in the entry": (archive(replace(A, local_name=b"b.dcm")), "contradict"),
    "another method in the entry": (archive(replace(A, local_method=8)), "contradict"),
    "other flags in the entry": (archive(replace(A, local_flags=0x800)), "contradict"),
    "another size in the entry": (archive(replace(A, local_numbers=(A.numbers[0], 10, 9))), "contradict"),
    "another stored size in the entry": (archive(replace(A, local_numbers=(A.numbers[0], 9, 10))), "contradict"),
    "another checksum in the entry": (archive(replace(A, local_numbers=(0, 10, 10))), "contradict"),
    "a wrong size before and a right one behind": (archive(replace(B, flags=8, local_numbers=(0, 5, 0))), "contradict"),
    "a wrong size behind": (
        archive(replace(B, flags=8, descriptor=SIGNATURE + struct.pack("<3I", *B.numbers[:2], 7))),
        "contradict",
    ),
    "nothing behind": (archive(replace(B, flags=8, descriptor=b"")), "contradict"),
    "sizes behind that nothing announces": (archive(replace(B, descriptor=struct.pack("<3I", *B.numbers))), "contradict"),
    "a stored entry that is larger than it is": (archive(replace(A, size=11)), "contradict"),
    "an entry inside of stored data whose end a signature tells": (
        archive(replace(A, flags=8, data=SIGNATURE + bytes(12) + local(HIDDEN))),
        "only a signature tells",
    ),
    "an entry in deflated data after its end": (archive(replace(B, slack=local(HIDDEN))), "not the one its archive states"),
    "one byte in deflated data after its end": (archive(replace(B, slack=b"\0")), "not the one its archive states"),
    "a wrong checksum": (archive(replace(A, crc=7)), "a damaged entry"),
    "a larger size": (archive(replace(B, size=len(B.data) + 1)), "not the one its archive states"),
    "a smaller size": (archive(replace(B, size=len(B.data) - 1)), "not the one its archive states"),
    "a folder with data": (archive(replace(A, name=b"d/")), "contradict"),
    "an encrypted entry": (archive(replace(A, flags=1)), "encrypted"),
    "a masked directory entry": (archive(replace(A, flags=0x2000)), "encrypted"),
    "an entry on another disk": (archive(replace(A, disk=1)), "several disks"),
    "deflated data that is damaged": (archive(replace(B, method=8)).replace(B.raw[:6], b"\xff" * 6), "damaged|states"),
    "sizes that are masked and nowhere": (archive(replace(A, local_numbers=(A.numbers[0], 0xFFFFFFFF, 10))), "damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_archive_that_two_tools_unpack_differently_is_refused(tmp_path: Path, name: str) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(Unreadable, match=reason):
        listed(tmp_path, data)


def test_methods_other_than_stored_and_deflated_are_refused(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(tmp_path / "b.zip", "w", method) as file:
            file.writestr("a", b"a" * 99)
        with pytest.raises(Unreadable, match="neither stored nor deflated"):
            entries(tmp_path / "b.zip", LIMITS)


def test_no_cut_and_no_changed_byte_gives_other_content(tmp_path: Path) -> None:
    whole = archive(A, replace(B, flags=8), comment=b"c")
    expected = {"a.dcm": A.data, "b.dcm": B.data}
    for length in range(len(whole)):
        with pytest.raises(Unreadable):
            listed(tmp_path, whole[:length])
    for at in range(len(whole)):
        try:
            found = listed(tmp_path, whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        except Unreadable:
            continue
        assert found == expected, at


def test_the_head_of_an_entry_is_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(archive(A, replace(B, crc=7)))
    first, second = entries(path, LIMITS)
    assert content(path, first, LIMITS, 4) == b"0123"
    assert content(path, second, LIMITS, 5) == b"bcdef"
    check(path, first)
    with pytest.raises(Unreadable, match="a damaged entry"):
        check(path, second)


def test_an_archive_at_the_end_of_anything_is_seen() -> None:
    for data in (archive(A), archive(A, B, comment=b"c" * 999), b"x" * 9999 + archive(B), archive(A, after=bytes(99))):
        assert appended(data)
    for data in (b"", b"PK\5\6", b"PK\5\6" + bytes(99), b"x" * 70000, archive(A) + bytes(70000)):
        assert not appended(data)


def test_a_file_that_is_left_out_of_an_archive_hides_nothing_behind_it(tmp_path: Path) -> None:
    text = replace(B, name=b"readme.txt", data=b"bcdef" * 9999)
    for piece, expected in ((text, 1), (replace(text, slack=local(HIDDEN)), 0), (replace(text, crc=7), 0)):
        (tmp_path / "a.zip").write_bytes(archive(piece))
        images = find_images([tmp_path])
        assert len(list(images)) == 1 - expected
        assert images.skipped == expected
