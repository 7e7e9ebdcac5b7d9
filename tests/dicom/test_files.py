"""Finding objects: folders, archives and DICOMDIRs, hostile ones among them."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from corpus import packaged
from making import BIG, IMPLICIT, element, item, made, meta, pixels

from ledger.core.errors import NeedPermission, Unreadable
from ledger.dicom import Limits, find_images

GOOD = made(pixels(2, 2, b"\0\1\2\3"))
BARE = GOOD[len(meta()) :]


def found(*paths: Path, limits: Limits | None = None) -> tuple[list[str], int]:
    """The display paths that open, and how many files were skipped; one that does not open is marked."""
    images = find_images(paths, limits=limits or Limits())
    shown = []
    for name, opener, _ in images:
        try:
            opener()
        except Unreadable as error:
            name = f"{name}: {error}"
        shown.append(name)
    return shown, images.skipped


def test_folders_are_walked_in_order_and_what_is_no_dicom_is_counted(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "b" / "2.dcm").write_bytes(GOOD)
    (tmp_path / "b" / "1").write_bytes(BARE)
    (tmp_path / "a" / "x.dcm").write_bytes(GOOD)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path)
    names, skipped = found(tmp_path)
    assert names == [str(tmp_path / "a" / "x.dcm"), str(tmp_path / "b" / "1"), str(tmp_path / "b" / "2.dcm")]
    assert skipped == 6


HEADERLESS = {
    "without a delimiter": BARE[:-1],
    "followed by other bytes": BARE + bytes(4),
    "meta information that is cut off": b"\2\0\0\0UL\4\0" + bytes(4) + BARE,
    "implicit": made(pixels(2, 2, b"\0\1\2\3"), syntax=IMPLICIT)[len(meta(IMPLICIT)) : -1],
    "big endian": made(pixels(2, 2, b"\0\1\2\3"), syntax=BIG)[len(meta(BIG)) : -1],
    "from the patient on, explicit": element(0x00100010, "PN", "x") + BARE[18:],
    "from the patient on, implicit": element(0x00100010, "PN", "x", syntax=IMPLICIT)
    + element(0x00280010, "US", 1, syntax=IMPLICIT),
    "a command set before it": struct.pack("<HHII", 0, 0, 4, 0) + BARE,
    "a group length of 6 bytes": struct.pack("<HHI", 8, 0, 6) + bytes(6) + element(0x00080018, "UI", "1.2", syntax=IMPLICIT),
    "an undefined length": struct.pack("<HHI", 8, 0x1115, 0xFFFFFFFF),
    "after a preamble": bytes(128) + b"DICM" + BARE,
    "after any preamble": b"II*\0" + bytes(124) + b"DICM",
}


@pytest.mark.parametrize("name", HEADERLESS)
def test_what_a_lenient_reader_would_open_is_not_skipped(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_bytes(HEADERLESS[name])
    names, skipped = found(tmp_path)
    assert (len(names), skipped) == (1, 0)
    assert "x: " in names[0]
    path = archive(tmp_path / "a.zip", {"x": HEADERLESS[name]})
    names, skipped = found(path)
    assert (len(names), skipped) == (1, 0)
    assert "!/x: " in names[0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"PATIENT;UI;1.2.3",
        bytes(1000),
        b"\x7fELF\2\1\1\0" + bytes(99),
        b"\x08\0\0\0\xff\0\0\0" + bytes(9),
        b"\x1f\x8b\x08\0",
    ],
)
def test_what_nobody_takes_for_dicom_is_skipped_and_counted(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert found(tmp_path) == ([], 1)
    assert found(archive(tmp_path / "a.zip", {"x": content})) == ([], 1)


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    listed = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(NeedPermission, match="list the folder"):
        found(tmp_path)


def test_a_damaged_file_with_dicom_magic_is_not_skipped(tmp_path: Path) -> None:
    (tmp_path / "cut.dcm").write_bytes(GOOD[:-1])
    names, skipped = found(tmp_path)
    assert skipped == 0
    assert "cut.dcm: (7fe0,0010)" in names[0]


def test_a_file_that_is_named_must_be_dicom(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert "not a DICOM object" in found(tmp_path / "notes.txt")[0][0]
    assert "No such file" in found(tmp_path / "missing")[0][0]


def archive(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def test_archives_are_read_entry_by_entry_without_unpacking(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "study.zip",
        {"b/1.dcm": GOOD, "a/readme.txt": b"x" * 100, "../../evil.dcm": GOOD, "/abs.dcm": GOOD, "a\nb.dcm": GOOD, "bare": BARE},
    )
    names, skipped = found(path)
    assert names == [f"{path}!/{entry}" for entry in ("../../evil.dcm", "/abs.dcm", "a?b.dcm", "b/1.dcm", "bare")]
    assert skipped == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["study.zip"]
    assert found(tmp_path)[0] == names


def test_bombs_and_lies_in_archives_are_unreadable(tmp_path: Path) -> None:
    bomb = archive(tmp_path / "bomb.zip", {"big.dcm": GOOD + bytes(1 << 24), "ok.dcm": GOOD})
    tight = found(bomb, limits=Limits(archive_ratio=100))[0]
    assert "inflates" in tight[0]
    assert tight[1] == f"{bomb}!/ok.dcm"
    assert "bytes: 1000000 are allowed" in found(bomb, limits=Limits(file_bytes=1_000_000))[0][0]
    assert "an archive of 2 entries: 1 are allowed" in found(bomb, limits=Limits(archive_entries=1))[0][0]

    honest = archive(tmp_path / "lie.zip", {"a.dcm": GOOD}, zipfile.ZIP_STORED).read_bytes()
    for at in range(len(GOOD) - 1, len(GOOD) + 60):
        damaged = bytearray(honest)
        damaged[at] ^= 1
        (tmp_path / "damaged.zip").write_bytes(damaged)
        names, skipped = found(tmp_path / "damaged.zip")
        assert len(names) + skipped <= 1
    (tmp_path / "cut.zip").write_bytes(honest[:60])
    assert "a zip archive that is cut off" in found(tmp_path / "cut.zip")[0][0]
    size = len(GOOD).to_bytes(4, "little")
    for stated in (len(GOOD) - 2, len(GOOD) + 2):
        (tmp_path / "lie.zip").write_bytes(honest.replace(size, stated.to_bytes(4, "little")))
        assert any(": " in name for name in found(tmp_path / "lie.zip")[0])


def test_an_entry_shorter_than_its_archive_states_is_unreadable(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"a.dcm": GOOD})
    size = len(GOOD).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, (len(GOOD) + 100).to_bytes(4, "little")))
    assert "not the one its archive states" in found(path)[0][0]


def test_an_archive_in_an_archive_is_not_opened_and_not_skipped(tmp_path: Path) -> None:
    inner = archive(tmp_path / "inner.zip", {"a.dcm": GOOD}).read_bytes()
    outer = archive(tmp_path / "outer.zip", {"inner.zip": inner, "b.dcm": GOOD})
    names, skipped = found(outer)
    assert names == [f"{outer}!/b.dcm", f"{outer}!/inner.zip: a zip archive where a DICOM object is expected"]
    assert skipped == 0


def polyglot(preamble: bytes, tail: bytes) -> bytes:
    """A DICOM object whose preamble and last element are of another format."""
    whole = made(pixels(2, 2, b"\0\1\2\3"), extra={0xFFFCFFFC: element(0xFFFCFFFC, "OB", tail)})
    return preamble + whole[len(preamble) :]


def test_what_is_a_dicom_object_and_a_zip_archive_is_neither(tmp_path: Path) -> None:
    inside = archive(tmp_path / "in.zip", {"a.dcm": GOOD}).read_bytes()
    (tmp_path / "in.zip").unlink()
    with_comment = inside[:-2] + struct.pack("<H", 8) + b"comments"
    cases = [polyglot(magic, tail) for magic in (b"PK\3\4", b"PK\5\6", b"PK\7\x08") for tail in (b"", inside)]
    cases += [polyglot(b"", tail) for tail in (inside, with_comment, inside + bytes(100))]
    for case in cases:
        (tmp_path / "x").write_bytes(case)
        for path in (tmp_path / "x", tmp_path):
            names, skipped = found(path)
            assert names == [
                f"{tmp_path / 'x'}: a DICOM object that is a zip archive as well: two readers would see two things in it"
            ]
            assert skipped == 0
        outer = archive(tmp_path / "y.zip", {"x": case})
        assert "a zip archive as well" in found(outer)[0][0]
        outer.unlink()
    (tmp_path / "x").write_bytes(polyglot(b"", b"PK\5\6" + bytes(100)))
    assert found(tmp_path) == ([str(tmp_path / "x")], 0)


def test_memory_stays_flat_over_many_objects(tmp_path: Path) -> None:
    large = made(pixels(1000, 1000, bytes(1_000_000)))
    path = archive(tmp_path / "many.zip", {f"{number}.dcm": large for number in range(30)}, zipfile.ZIP_STORED)
    tracemalloc.start()
    for _, opener, _ in find_images([path]):
        opener()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6_000_000


def dicomdir(*names: str, extra: bytes = b"", bare: bool = False) -> bytes:
    """A DICOMDIR with one record a name; a record without a file for an empty one. `extra` follows the records, which a `bare`
    one has not."""
    records = b"".join(
        item(element(0x00041500, "CS", name) if name else element(0x00041430, "CS", "PATIENT")) for name in names
    )
    media = element(0x00020002, "UI", "1.2.840.10008.1.3.10") + element(0x00020010, "UI", "1.2.840.10008.1.2.1")
    head = bytes(128) + b"DICM" + element(0x00020000, "UL", len(media).to_bytes(4, "little")) + media
    return head + (b"" if bare else element(0x00041220, "SQ", records)) + extra


def test_a_dicomdir_leads_to_its_files(tmp_path: Path) -> None:
    (tmp_path / "IMAGES").mkdir()
    (tmp_path / "images2").mkdir()
    (tmp_path / "IMAGES" / "I1").write_bytes(GOOD)
    (tmp_path / "images2" / "i2").write_bytes(GOOD)
    (tmp_path / "DICOMDIR").write_bytes(dicomdir("IMAGES\\I1", "", "IMAGES2\\I2", "IMAGES\\I1", "GONE"))
    names, _ = found(tmp_path / "DICOMDIR")
    assert names[:2] == [str(tmp_path / "IMAGES" / "I1"), str(tmp_path / "IMAGES2" / "I2")]
    assert "GONE: the file can't be read" in names[2]
    assert len(names) == 3
    assert found(tmp_path)[1] == 1


@pytest.mark.parametrize("name", ["..\\secret", "A\\..\\..\\secret", "/etc/passwd", "LINK\\secret", "C:\\X", "\\secret", "."])
def test_a_dicomdir_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(GOOD)
    folder = tmp_path / "media"
    folder.mkdir()
    (folder / "LINK").symlink_to(tmp_path)
    (folder / "DICOMDIR").write_bytes(dicomdir(name))
    assert "outside its folder" in found(folder / "DICOMDIR")[0][0]


IMAGE_CLASS = element(0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.2")


@pytest.mark.parametrize(
    "content",
    [
        dicomdir(bare=True, extra=BARE),
        dicomdir(bare=True),
        dicomdir("I1", extra=BARE),
        dicomdir("I1", extra=element(0x7FE00010, "OW", b"\0\1")),
        dicomdir("I1", extra=element(0x7FE00008, "OF", bytes(4))),
        dicomdir("I1", extra=IMAGE_CLASS),
    ],
)
def test_an_image_does_not_pass_for_a_dicomdir(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "I1").write_bytes(GOOD)
    (tmp_path / "b.dcm").write_bytes(content)
    reason = "a DICOMDIR by its meta information, and none by its data set"
    assert found(tmp_path) == ([str(tmp_path / "I1"), f"{tmp_path / 'b.dcm'}: {reason}"], 0)
    assert found(tmp_path / "b.dcm") == ([f"{tmp_path / 'b.dcm'}: {reason}"], 0)
    path = archive(tmp_path / "a.zip", {"b.dcm": content})
    assert found(path) == ([f"{path}!/b.dcm: {reason}"], 0)


def test_a_real_dicomdir_is_skipped_in_folders_and_archives(tmp_path: Path) -> None:
    content = dicomdir("I1", extra=element(0x00080016, "UI", "1.2.840.10008.1.3.10"))
    (tmp_path / "DICOMDIR").write_bytes(content)
    assert found(tmp_path) == ([], 1)
    assert found(archive(tmp_path / "a.zip", {"DICOMDIR": content})) == ([], 1)


def test_who_named_a_file_is_known(tmp_path: Path) -> None:
    (tmp_path / "I1").write_bytes(GOOD)
    (tmp_path / "DICOMDIR").write_bytes(dicomdir("I1"))
    path = archive(tmp_path / "a.zip", {"x": GOOD})
    for named, expected in (
        (tmp_path / "I1", [True]),
        (tmp_path, [False, False]),
        (tmp_path / "DICOMDIR", [False]),
        (path, [False]),
    ):
        assert [file.named for file in find_images([named])] == expected


def test_a_damaged_dicomdir_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "DICOMDIR").write_bytes(dicomdir("A")[:-1])
    assert "DICOMDIR: " in found(tmp_path / "DICOMDIR")[0][0]


def test_real_dicomdirs_and_their_folder_agree() -> None:
    folder = packaged()["DICOMDIR"].parent
    through_index = {Path(name) for name in found(folder / "DICOMDIR")[0]}
    through_walk = {Path(name) for name in found(folder)[0]}
    assert len(through_index) > 20
    assert through_index <= through_walk
