"""Finding objects: folders, archives and DICOMDIRs, hostile ones among them."""

from __future__ import annotations

import os
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from corpus import packaged
from making import element, item, made, meta, pixels

from ledger.core.errors import Unreadable
from ledger.dicom import Limits, find_images

GOOD = made(pixels(2, 2, b"\0\1\2\3"))
BARE = GOOD[len(meta()) :]


def found(*paths: Path, limits: Limits | None = None) -> tuple[list[str], int]:
    """The display paths that open, and how many files were skipped; one that does not open is marked."""
    images = find_images(paths, limits=limits or Limits())
    shown = []
    for name, opener in images:
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
    (tmp_path / "odd").write_bytes(BARE[:-1])
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path)
    names, skipped = found(tmp_path)
    assert names == [str(tmp_path / "a" / "x.dcm"), str(tmp_path / "b" / "1"), str(tmp_path / "b" / "2.dcm")]
    assert skipped == 4


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
    assert "damaged zip archive" in found(tmp_path / "cut.zip")[0][0]
    size = len(GOOD).to_bytes(4, "little")
    for stated in (len(GOOD) - 2, len(GOOD) + 2):
        (tmp_path / "lie.zip").write_bytes(honest.replace(size, stated.to_bytes(4, "little")))
        assert any(": " in name for name in found(tmp_path / "lie.zip")[0])


def test_an_entry_shorter_than_its_archive_states_is_unreadable(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"a.dcm": GOOD})
    size = len(GOOD).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, (len(GOOD) + 100).to_bytes(4, "little")))
    assert "not the one its archive states" in found(path)[0][0]


def test_an_archive_in_an_archive_is_not_opened(tmp_path: Path) -> None:
    inner = archive(tmp_path / "inner.zip", {"a.dcm": GOOD}).read_bytes()
    outer = archive(tmp_path / "outer.zip", {"inner.zip": inner})
    assert found(outer) == ([], 1)


def test_memory_stays_flat_over_many_objects(tmp_path: Path) -> None:
    large = made(pixels(1000, 1000, bytes(1_000_000)))
    path = archive(tmp_path / "many.zip", {f"{number}.dcm": large for number in range(30)}, zipfile.ZIP_STORED)
    tracemalloc.start()
    for _, opener in find_images([path]):
        opener()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6_000_000


def dicomdir(*names: str) -> bytes:
    """A DICOMDIR with one record a name; a record without a file for an empty one."""
    records = b"".join(
        item(element(0x00041500, "CS", name) if name else element(0x00041430, "CS", "PATIENT")) for name in names
    )
    media = element(0x00020002, "UI", "1.2.840.10008.1.3.10") + element(0x00020010, "UI", "1.2.840.10008.1.2.1")
    head = bytes(128) + b"DICM" + element(0x00020000, "UL", len(media).to_bytes(4, "little")) + media
    return head + element(0x00041220, "SQ", records)


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


def test_a_damaged_dicomdir_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "DICOMDIR").write_bytes(dicomdir("A")[:-1])
    assert "DICOMDIR: " in found(tmp_path / "DICOMDIR")[0][0]


def test_real_dicomdirs_and_their_folder_agree() -> None:
    folder = packaged()["DICOMDIR"].parent
    through_index = {Path(name) for name in found(folder / "DICOMDIR")[0]}
    through_walk = {Path(name) for name in found(folder)[0]}
    assert len(through_index) > 20
    assert through_index <= through_walk
