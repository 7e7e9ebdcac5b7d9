"""The DICOM objects under paths that a user names: files, folders, zip archives, and the files that a DICOMDIR refers to.

One object at a time is in memory. Nothing is unpacked to disk, and no name inside an archive or a DICOMDIR is followed out
of its folder.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from ledger.core.errors import NeedPermission, ScanSealError, Unreadable
from ledger.dicom.decoder import Decoder
from ledger.dicom.elements import EXPLICIT_LITTLE, IMPLICIT_LITTLE, Walk, guessed_encoding, read_meta
from ledger.dicom.image import Image, read
from ledger.dicom.limits import DEFAULT_LIMITS, Limits
from ledger.dicom.regular_file import head, whole
from ledger.dicom.values import ascii_text

Opener = Callable[[], Image]

_ZIP_MAGIC: Final = b"PK\x03\x04"
_DICOMDIR_CLASS: Final = b"1.2.840.10008.1.3.10"
_RECORDS: Final = 0x00041220
_REFERENCED_FILE: Final = 0x00041500
_HEAD: Final = 4096
_RATIO_FREE: Final = 1 << 20


class ImageFiles:
    """Iterate once over (display path, opener) of every DICOM object under `paths`, in sorted order inside each folder.

    An opener reads its object when called, and raises what `read` raises. A file that is named in `paths` is always yielded,
    so that one which is no DICOM object is an error; inside folders and archives, files that have no DICOM magic and can't be
    parsed are left out and counted in `skipped`, as are a folder's DICOMDIR and whatever is no regular file. Links to folders
    are not followed. Display paths of archive entries are `archive.zip!/entry`; control characters in names show as `?`.
    """

    def __init__(self, paths: Iterable[Path], *, limits: Limits = DEFAULT_LIMITS, decoder: Decoder | None = None) -> None:
        self.skipped = 0
        self._paths = list(paths)
        self._limits = limits
        self._decoder = decoder

    def __iter__(self) -> Iterator[tuple[str, Opener]]:
        for path in self._paths:
            if path.is_dir():
                yield from self._folder(path)
            else:
                yield from self._file(path, named=True)

    def _folder(self, folder: Path) -> Iterator[tuple[str, Opener]]:
        for parent, folders, files in os.walk(folder):
            folders.sort()
            for name in sorted(files):
                yield from self._file(Path(parent, name), named=False)

    def _file(self, path: Path, *, named: bool) -> Iterator[tuple[str, Opener]]:
        try:
            start = head(path, _HEAD)
        except ScanSealError as error:
            if named or isinstance(error, NeedPermission):
                yield _shown(str(path)), _failing(error)
            else:
                self.skipped += 1
            return
        if start.startswith(_ZIP_MAGIC):
            yield from self._archive(path)
        elif _is_dicomdir(start):
            if named:
                yield from self._dicomdir(path)
            else:
                self.skipped += 1
        elif named or self._is_object(start, lambda: self._read(path)):
            yield _shown(str(path)), lambda: self._read(path)
        else:
            self.skipped += 1

    def _read(self, source: Path | bytes) -> Image:
        return read(source, limits=self._limits, decoder=self._decoder)

    def _is_object(self, start: bytes, opener: Opener) -> bool:
        if start[128:132] == b"DICM":
            return True
        if guessed_encoding(start) is None and start[:2] != b"\x02\x00":
            return False
        try:
            opener()
        except ScanSealError:
            return False
        return True

    # ---- zip archives -----------------------------------------------------------------------------------------------

    def _archive(self, path: Path) -> Iterator[tuple[str, Opener]]:
        shown = _shown(str(path))
        try:
            with zipfile.ZipFile(path) as archive:
                if len(archive.infolist()) > self._limits.archive_entries:
                    raise Unreadable(
                        f"an archive of {len(archive.infolist())} entries: {self._limits.archive_entries} are allowed"
                    )
                for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
                    if entry.is_dir():
                        continue
                    yield from self._entry(path, archive, entry, f"{shown}!/{_shown(entry.filename)}")
        except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
            yield shown, _failing(Unreadable("a damaged zip archive"), error)
        except Unreadable as error:
            yield shown, _failing(error)

    def _entry(self, path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, shown: str) -> Iterator[tuple[str, Opener]]:
        def opener() -> Image:
            with zipfile.ZipFile(path) as again:
                return self._read(self._inflated(again, entry, entry.file_size))

        try:
            start = self._inflated(archive, entry, _HEAD)
        except Unreadable as error:
            yield shown, _failing(error)
            return
        if _is_dicomdir(start) or not self._is_object(start, opener):
            self.skipped += 1
        else:
            yield shown, opener

    def _inflated(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, length: int) -> bytes:
        if entry.file_size > self._limits.file_bytes:
            raise Unreadable(f"an entry of {entry.file_size} bytes: {self._limits.file_bytes} are allowed")
        if entry.file_size > max(_RATIO_FREE, self._limits.archive_ratio * entry.compress_size):
            raise Unreadable(f"an entry that inflates {entry.compress_size} bytes to {entry.file_size}")
        try:
            with archive.open(entry) as file:
                # One byte more than stated: zipfile checks the CRC at the real end, and nothing may follow the stated size.
                found = file.read(length + (length >= entry.file_size))
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError) as error:
            raise Unreadable("a damaged or encrypted entry of a zip archive") from error
        if len(found) > entry.file_size or (length >= entry.file_size and len(found) < entry.file_size):
            raise Unreadable("an entry whose size is not the one its archive states")
        return found

    # ---- DICOMDIR (PS3.10 §8, PS3.3 Annex F) --------------------------------------------------------------------------

    def _dicomdir(self, path: Path) -> Iterator[tuple[str, Opener]]:
        try:
            names = list(dict.fromkeys(_referenced_files(whole(path, self._limits), self._limits)))
        except ScanSealError as error:
            yield _shown(str(path)), _failing(error)
            return
        folder = path.parent.resolve()
        for parts in names:
            found = _under(folder, parts)
            shown = _shown(str(path.parent.joinpath(*parts)))
            if found is None:
                yield shown, _failing(Unreadable("a DICOMDIR refers to a file outside its folder"))
            else:
                yield shown, self._opener(found)

    def _opener(self, path: Path) -> Opener:
        return lambda: self._read(path)


def find_images(paths: Iterable[Path], *, limits: Limits = DEFAULT_LIMITS, decoder: Decoder | None = None) -> ImageFiles:
    """The DICOM objects under `paths`, found lazily: see `ImageFiles`."""
    return ImageFiles(paths, limits=limits, decoder=decoder)


def _is_dicomdir(start: bytes) -> bool:
    return (
        start[128:132] == b"DICM" and b"\x02\x00\x02\x00UI" + bytes([len(_DICOMDIR_CLASS), 0]) + _DICOMDIR_CLASS in start[:400]
    )


def _referenced_files(data: bytes, limits: Limits) -> Iterator[tuple[str, ...]]:
    meta = read_meta(data)
    if meta is None:
        raise Unreadable("a DICOMDIR without file meta information")
    encoding = IMPLICIT_LITTLE if meta.transfer_syntax == "1.2.840.10008.1.2" else EXPLICIT_LITTLE
    walk = Walk(data, limits)
    records = walk.elements(meta.offset, len(data), encoding, (_RECORDS,)).get(_RECORDS)
    for record in walk.items(records, encoding, (_REFERENCED_FILE,)) if records else ():
        name = ascii_text(data, record.get(_REFERENCED_FILE))
        if name:
            yield tuple(part.strip(" ") for part in name.split("\\"))


def _under(folder: Path, parts: tuple[str, ...]) -> Path | None:
    """The file `parts` below `folder`, None when a part or a link leads out of it. Names in other case are tried lower case."""
    if any(part in ("", ".", "..") or "/" in part or "\0" in part or ":" in part for part in parts):
        return None
    for names in (parts, tuple(part.lower() for part in parts)):
        path = folder.joinpath(*names)
        with suppress(OSError):
            if path.exists() or names is not parts:
                return path if path.resolve().is_relative_to(folder) else None
    return None


def _failing(error: ScanSealError, cause: BaseException | None = None) -> Opener:
    def opener() -> Image:
        raise error from cause

    return opener


def _shown(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name)
