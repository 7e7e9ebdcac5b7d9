"""A log's real storage with switches: something happens at a named point of the three writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ledger.core.merkle import Tile
from ledger.log import Batch, Storage

POINTS: Final = ("before stage", "staged", "before swap", "swapped", "before publish", "published")


class Switched:
    """Storage that calls `at(point)` at each of `POINTS`, and counts the tiles it reads."""

    def __init__(self, storage: Storage, at: Callable[[str], None] = lambda point: None) -> None:
        self._storage = storage
        self._at = at
        self.tiles_read = 0

    def checkpoint(self) -> str | None:
        return self._storage.checkpoint()

    def tiles(self, tiles: Sequence[Tile]) -> list[bytes]:
        self.tiles_read += len(tiles)
        return self._storage.tiles(tiles)

    def entries(self, start: int, stop: int) -> Iterator[bytes]:
        return self._storage.entries(start, stop)

    def stage(self, batch: Batch) -> int:
        self._at("before stage")
        staged = self._storage.stage(batch)
        self._at("staged")
        return staged

    def swap_head(self, old_size: int, staged: int) -> bool:
        self._at("before swap")
        swapped = self._storage.swap_head(old_size, staged)
        self._at("swapped")
        return swapped

    def publish(self) -> None:
        self._at("before publish")
        self._storage.publish()
        self._at("published")
