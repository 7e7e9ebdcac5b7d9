"""The DICOM objects under paths that a user names: files, folders, zip archives, and the files that a DICOMDIR refers to.

One object at a time is in memory. Nothing is unpacked to disk, and no name inside an archive or a DICOMDIR is followed out
of its folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from ledger.core.errors import NeedPermission, ScanSealError, Unreadable
from ledger.dicom import zips
from ledger.dicom.decoder import Decoder
from ledger.dicom.elements import (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    Element,
    Encoding,
    Walk,
    is_dicom_file,
    looks_like_data_set,
    read_meta,
)
from ledger.dicom.image import Image, read
from ledger.dicom.limits import DEFAULT_LIMITS, Limits
from ledger.dicom.pixel_module import PIXEL_ELEMENTS
from ledger.dicom.regular_file import head, whole
from ledger.dicom.values import ascii_text

Opener = Callable[[], Image]

_DICOMDIR_CLASS: Final = "1.2.840.10008.1.3.10"
_RECORDS: Final = 0x00041220
_REFERENCED_FILE: Final = 0x00041500
_CLASS: Final = 0x00080016
_HEAD: Final = 4096


class ImageFile(NamedTuple):
    """A DICOM object at a place: `path` for people, `open` to read it; `named` when that very file was named by the user."""

    path: str
    open: Opener
    named: bool


class ImageFiles:
    """Iterate once over every DICOM object under `paths`, in sorted order inside each folder.

    An opener reads its object when called, and raises what `read` raises. A file that is named in `paths` is always yielded,
    so that one which is no DICOM object is an error. Inside folders and archives whatever a lenient reader would take for a
    DICOM object is yielded too, readable or not, and so are an archive in an archive and a folder that can't be listed; all
    else is left out and counted in `skipped`: other files, a folder's DICOMDIR, links to folders, what is no regular file.
    Display paths of archive entries are `archive.zip!/entry`; control characters in names show as `?`.
    """

    def __init__(self, paths: Iterable[Path], *, limits: Limits = DEFAULT_LIMITS, decoder: Decoder | None = None) -> None:
        self.skipped = 0
        self._paths = list(paths)
        self._limits = limits
        self._decoder = decoder

    def __iter__(self) -> Iterator[ImageFile]:
        for path in self._paths:
            if path.is_dir():
                yield from self._folder(path)
            else:
                yield from self._file(path, named=True)

    def _folder(self, folder: Path) -> Iterator[ImageFile]:
        closed: list[OSError] = []
        for parent, folders, files in os.walk(folder, onerror=closed.append):
            folders.sort()
            self.skipped += sum(Path(parent, name).is_symlink() for name in folders)
            for name in sorted(files):
                yield from self._file(Path(parent, name), named=False)
        for error in closed:
            yield _failing(_shown(str(error.filename)), NeedPermission("the system does not let us list the folder"), error)

    def _file(self, path: Path, *, named: bool) -> Iterator[ImageFile]:
        shown, start = _shown(str(path)), b""
        try:
            start = head(path, _HEAD)
            if start.startswith(zips.MAGICS) and not is_dicom_file(start):
                yield from self._archive(path)
            elif (directory := self._directory(start, lambda: whole(path, self._limits))) is not None:
                if named:
                    yield from self._referenced(path, directory)
                else:
                    self.skipped += 1
            elif named or self._is_object(start, path.stat().st_size):
                yield ImageFile(shown, lambda: self._read(path), named)
            else:
                self.skipped += 1
        except OSError as error:
            yield _failing(shown, Unreadable("the file can't be read"), error)
        except ScanSealError as error:
            if named or isinstance(error, NeedPermission) or is_dicom_file(start):
                yield _failing(shown, error)
            else:
                self.skipped += 1

    def _read(self, source: Path | bytes) -> Image:
        return read(source, limits=self._limits, decoder=self._decoder)

    def _is_object(self, start: bytes, size: int) -> bool:
        return is_dicom_file(start) or looks_like_data_set(start, size)

    # ---- zip archives -----------------------------------------------------------------------------------------------

    def _archive(self, path: Path) -> Iterator[ImageFile]:
        shown = _shown(str(path))
        try:
            found = zips.entries(path, self._limits)
        except Unreadable as error:
            yield _failing(shown, error)
            return
        for entry in found:
            if not entry.is_folder:
                yield from self._entry(path, entry, f"{shown}!/{_shown(entry.name)}")

    def _entry(self, path: Path, entry: zips.Entry, shown: str) -> Iterator[ImageFile]:
        def content() -> bytes:
            return zips.content(path, entry, self._limits)

        try:
            start = zips.content(path, entry, self._limits, _HEAD)
            if self._directory(start, content) is not None:
                self.skipped += 1
            elif start.startswith(zips.MAGICS) or self._is_object(start, entry.size):
                yield ImageFile(shown, lambda: self._read(content()), named=False)
            else:
                zips.check(path, entry)
                self.skipped += 1
        except Unreadable as error:
            yield _failing(shown, error)

    # ---- DICOMDIR (PS3.10 §8, PS3.3 Annex F) --------------------------------------------------------------------------

    def _directory(self, start: bytes, content: Callable[[], bytes]) -> _Directory | None:
        """The DICOMDIR that starts so, or None when its meta information says another class.

        Raises Unreadable when it says so and its data set is none: an image must not pass for the index of a folder.
        """
        if not is_dicom_file(start) or _DICOMDIR_CLASS.encode() not in start:
            return None
        data = content()
        meta = read_meta(data)
        if meta is None or meta.storage_class != _DICOMDIR_CLASS:
            return None
        encoding = IMPLICIT_LITTLE if meta.transfer_syntax == "1.2.840.10008.1.2" else EXPLICIT_LITTLE
        walk = Walk(data, self._limits)
        found = walk.elements(meta.offset, len(data), encoding, (_RECORDS, _CLASS, *PIXEL_ELEMENTS))
        if (
            _RECORDS not in found
            or len(found.keys() - {_CLASS}) > 1
            or ascii_text(data, found.get(_CLASS)) not in ("", _DICOMDIR_CLASS)
        ):
            raise Unreadable("a DICOMDIR by its meta information, and none by its data set")
        return _Directory(data, encoding, walk, found[_RECORDS])

    def _referenced(self, path: Path, directory: _Directory) -> Iterator[ImageFile]:
        folder = path.parent.resolve()
        for parts in dict.fromkeys(directory.files()):
            found = _under(folder, parts)
            shown = _shown(str(path.parent.joinpath(*parts)))
            if found is None:
                yield _failing(shown, Unreadable("a DICOMDIR refers to a file outside its folder"))
            else:
                yield ImageFile(shown, self._opener(found), named=False)

    def _opener(self, path: Path) -> Opener:
        return lambda: self._read(path)


class _Directory(NamedTuple):
    """A DICOMDIR's records."""

    data: bytes
    encoding: Encoding
    walk: Walk
    records: Element

    def files(self) -> Iterator[tuple[str, ...]]:
        """The parts of the path of each file that a record refers to."""
        for record in self.walk.items(self.records, self.encoding, (_REFERENCED_FILE,)):
            name = ascii_text(self.data, record.get(_REFERENCED_FILE))
            if name:
                yield tuple(part.strip(" ") for part in name.split("\\"))


def find_images(paths: Iterable[Path], *, limits: Limits = DEFAULT_LIMITS, decoder: Decoder | None = None) -> ImageFiles:
    """The DICOM objects under `paths`, found lazily: see `ImageFiles`."""
    return ImageFiles(paths, limits=limits, decoder=decoder)


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


def _failing(shown: str, error: ScanSealError, cause: BaseException | None = None) -> ImageFile:
    def opener() -> Image:
        raise error from cause

    return ImageFile(shown, opener, named=True)


def _shown(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name)
