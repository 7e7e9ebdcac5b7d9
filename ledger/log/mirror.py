"""The static mirror: a log as files that any web server can serve (C2SP tlog-tiles)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from ledger.core import merkle
from ledger.core.checkpoint import SIZE_LIMIT, Checkpoint, parse_and_verify
from ledger.core.errors import EvidenceInvalid, FixInput, NeedPermission, ScanSealError, Stop, TryLater
from ledger.core.merkle import ENTRY_LIMIT, HASH_SIZE, TILE_WIDTH, Tile
from ledger.log.storage import Published

_BUNDLE_LIMIT: Final = TILE_WIDTH * (ENTRY_LIMIT + 2)


class Mirror:
    """A mirror's folder, read as `ledger.log.storage.Published`. Nothing in it is trusted: see `ledger.log.check`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def checkpoint(self) -> str | None:
        content = _read(self._folder / "checkpoint", SIZE_LIMIT)
        try:
            return None if content is None else content.decode()
        except UnicodeDecodeError as error:
            raise EvidenceInvalid("not a checkpoint: it is not UTF-8", "checkpoint") from error

    def tiles(self, tiles: Sequence[Tile]) -> list[bytes]:
        found = []
        for tile in tiles:
            name, width, content = self._resource(tile.path, Tile(tile.level, tile.index, TILE_WIDTH).path, tile.width)
            if len(content) != width * HASH_SIZE:
                raise EvidenceInvalid(f"{name} is not {width * HASH_SIZE} bytes long", "tiles")
            found.append(content[: tile.width * HASH_SIZE])
        return found

    def entries(self, start: int, stop: int) -> Iterator[bytes]:
        at = start
        while at < stop:
            bundle, first = divmod(at, TILE_WIDTH)
            end = min(TILE_WIDTH, stop - bundle * TILE_WIDTH)
            full = merkle.entries_path(bundle, TILE_WIDTH)
            name, width, content = self._resource(merkle.entries_path(bundle, end), full, end)
            try:
                held = merkle.unpack_entries(content)
            except EvidenceInvalid as error:
                raise EvidenceInvalid(f"{name}: {error}", "tiles") from error
            if len(held) != width:
                raise EvidenceInvalid(f"{name} has {len(held)} entries, not {width}", "tiles")
            yield from held[first:end]
            at = bundle * TILE_WIDTH + end

    def _resource(self, name: str, full: str, width: int) -> tuple[str, int, bytes]:
        # A mirror that has grown since may hold the full tile, or a wider partial one, instead of the one asked for.
        wider = ((f"{full}.p/{more}", more) for more in range(width + 1, TILE_WIDTH))
        for path, held in ((name, width), (full, TILE_WIDTH), *wider):
            content = _read(self._folder / path, _BUNDLE_LIMIT)
            if content is not None:
                return path, held, content
        raise EvidenceInvalid(f"{name} is missing", "tiles")


def _read(path: Path, limit: int) -> bytes | None:
    try:
        with path.open("rb") as file:
            # The file's own size first: read() makes room for all that it is asked for.
            content = file.read(min(os.fstat(file.fileno()).st_size, limit) + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except PermissionError as error:
        raise NeedPermission(f"{path} cannot be read: {error.strerror}") from error
    except OSError as error:
        raise TryLater(f"{path} could not be read: {error.strerror}") from error
    if len(content) > limit:
        raise EvidenceInvalid(f"{path} is longer than {limit} bytes", "tiles")
    return content


def export(source: Published, note: str, origin: str, public_key: bytes, folder: Path) -> Checkpoint:
    """Bring the mirror in `folder` up to the checkpoint `note` of `source`, and return that checkpoint.

    1. a mirror that is already there must be of this log and a prefix of it, else `Stop`: one that is ahead or differs means
       that this store was rolled back or that the log has two histories;
    2. write the entry bundles and tiles that are missing, each synced and moved into place whole;
    3. replace the checkpoint, last, so that readers never see one whose tiles are not there;
    4. remove partial tiles whose full tile is there.

    An export that was interrupted goes on where it stopped; run again, it writes nothing.
    """
    head = parse_and_verify(note, origin, public_key)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # 1
        _refuse_another_history(source, head, folder, public_key)
        # 2
        for level_0 in merkle.tiles_between(0, head.size):
            if level_0.level:
                break
            _write_bundle(source, level_0, folder)
        missing = (tile for tile in merkle.tiles_between(0, head.size) if not (folder / tile.path).exists())
        while group := list(islice(missing, TILE_WIDTH)):
            for tile, content in zip(group, source.tiles(group), strict=True):
                _place(folder / tile.path, content)
        # 3
        if Mirror(folder).checkpoint() != note:
            _place(folder / "checkpoint", note.encode())
        # 4
        for tile in merkle.tiles_between(0, head.size):
            if tile.width == TILE_WIDTH:
                paths = [tile.path] if tile.level else [tile.path, merkle.entries_path(tile.index, TILE_WIDTH)]
                for path in paths:
                    if (folder / f"{path}.p").is_dir():
                        shutil.rmtree(folder / f"{path}.p")
    except PermissionError as error:
        raise NeedPermission(f"the mirror {folder} cannot be written: {error.strerror}") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise FixInput(f"{folder} is not a folder for a mirror: {error.strerror}") from error
    except OSError as error:
        raise TryLater(f"the mirror {folder} could not be written: {error.strerror}; export again to go on") from error
    return head


def _refuse_another_history(source: Published, head: Checkpoint, folder: Path, public_key: bytes) -> None:
    try:
        held = Mirror(folder).checkpoint()
        if held is None:
            return
        mirrored = parse_and_verify(held, head.origin, public_key)
    except ScanSealError as error:
        raise FixInput(f"{folder} holds something else than a mirror of {head.origin}: {error}") from error
    if mirrored.size > head.size:
        raise Stop(
            f"the mirror {folder} has {mirrored.size} leaves and the log only {head.size}:"
            " the log's store is older than what it published; do not append to it"
        )
    if merkle.root_from_tiles(mirrored.size, source.tiles) != mirrored.root:
        raise Stop(f"the mirror {folder} and the log disagree on the root of size {mirrored.size}: the log has two histories")


def _write_bundle(source: Published, tile: Tile, folder: Path) -> None:
    path = folder / merkle.entries_path(tile.index, tile.width)
    if not path.exists():
        first = tile.index * TILE_WIDTH
        _place(path, merkle.pack_entries(source.entries(first, first + tile.width)))


def _place(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after the power failed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
