"""A log's storage in the database: `ledger.log.storage.Storage`, one transaction for each write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from sqlalchemy import ColumnElement, and_, delete, exists, insert, or_, select, update

from ledger.core.errors import EvidenceInvalid
from ledger.core.merkle import HASH_SIZE, TILE_HEIGHT, TILE_WIDTH, Tile, pack_entries, tiles_between, unpack_entries
from ledger.log.storage import Batch
from ledger.store.engine import Store
from ledger.store.schema import log_entry, log_head, log_staged, log_tile

_CHUNK: Final = TILE_WIDTH
"""Entries, and tiles, read with one query; SQLite takes expressions up to 1,000 deep."""


def _place(tile: Tile) -> ColumnElement[bool]:
    return and_(log_tile.c.level == tile.level, log_tile.c.number == tile.index)


class LogStore:
    """The log that this database holds. Duties: `ledger.log.storage.Storage`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def checkpoint(self) -> str | None:
        with self._store.reading() as connection:
            note: str | None = connection.execute(select(log_head.c.checkpoint)).scalar_one()
        return note

    def tiles(self, tiles: Sequence[Tile]) -> list[bytes]:
        stored: dict[tuple[int, int], bytes] = {}
        with self._store.reading() as connection:
            for start in range(0, len(tiles), _CHUNK):
                asked = [_place(tile) for tile in tiles[start : start + _CHUNK]]
                for level, number, hashes in connection.execute(select(log_tile).where(or_(*asked))):
                    stored[level, number] = hashes
        found = []
        for tile in tiles:
            hashes = stored.get((tile.level, tile.index), b"")[: tile.width * HASH_SIZE]
            if len(hashes) != tile.width * HASH_SIZE:
                raise EvidenceInvalid(f"{tile.path} is missing", "tiles")
            found.append(hashes)
        return found

    def entries(self, start: int, stop: int) -> Iterator[bytes]:
        columns = log_entry.c
        for first in range(start, stop, _CHUNK):
            last = min(first + _CHUNK, stop) - 1
            with self._store.reading() as connection:
                rows = connection.execute(
                    select(columns.number, columns.body).where(columns.number.between(first, last)).order_by(columns.number)
                ).all()
            for number, row in enumerate(rows, first):
                if row.number != number:
                    raise EvidenceInvalid(f"entry {number} is missing", "tiles")
                yield row.body
            if len(rows) != last - first + 1:
                raise EvidenceInvalid(f"entry {first + len(rows)} is missing", "tiles")

    def stage(self, batch: Batch) -> int:
        with self._store.writing() as connection:
            staged = connection.execute(
                insert(log_staged)
                .values(
                    old_size=batch.old_size,
                    new_size=batch.new_size,
                    checkpoint=batch.checkpoint,
                    entries=pack_entries(batch.entries),
                    tiles=b"".join(content for _, content in batch.tiles),
                )
                .returning(log_staged.c.id)
            )
            return int(staged.scalar_one())

    def swap_head(self, old_size: int, staged: int) -> bool:
        batch = and_(log_staged.c.id == staged, log_staged.c.old_size == old_size)
        with self._store.writing() as connection:
            swapped = connection.execute(
                update(log_head)
                .where(log_head.c.size == old_size, log_head.c.staged.is_(None), exists().where(batch))
                .values(size=select(log_staged.c.new_size).where(batch).scalar_subquery(), staged=staged)
            )
            return swapped.rowcount == 1

    def publish(self) -> None:
        with self._store.reading() as connection:
            if connection.execute(select(log_head.c.staged)).scalar_one() is None:
                return
        with self._store.writing() as connection:
            number = connection.execute(select(log_head.c.staged).with_for_update()).scalar_one()
            if number is None:
                return
            staged = connection.execute(select(log_staged).where(log_staged.c.id == number)).one()
            entries = unpack_entries(staged.entries)
            connection.execute(
                insert(log_entry), [{"number": at, "body": body} for at, body in enumerate(entries, staged.old_size)]
            )
            tiles = list(tiles_between(staged.old_size, staged.new_size))
            at = 0
            rows = []
            for tile in tiles:
                end = at + tile.width * HASH_SIZE
                rows.append({"level": tile.level, "number": tile.index, "hashes": staged.tiles[at:end]})
                at = end
            widened = [_place(tile) for tile in tiles if tile.index * TILE_WIDTH < staged.old_size >> TILE_HEIGHT * tile.level]
            if widened:
                connection.execute(delete(log_tile).where(or_(*widened)))
            connection.execute(insert(log_tile), rows)
            connection.execute(update(log_head).values(staged=None, checkpoint=staged.checkpoint))
            # What was staged on an older tree can never be sequenced: its writer lost, or died before the swap.
            connection.execute(delete(log_staged).where(log_staged.c.old_size < staged.new_size))
