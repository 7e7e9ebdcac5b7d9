"""What a log needs from its storage: to read what is published, and to stage, swap the head, publish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ledger.core.merkle import Tile


@dataclass(frozen=True, slots=True)
class Batch:
    """A tree of `old_size` grown to `new_size`: the new entries, the tiles of `tiles_between`, the signed checkpoint."""

    old_size: int
    new_size: int
    entries: Sequence[bytes]
    tiles: Sequence[tuple[Tile, bytes]]
    checkpoint: str


class Published(Protocol):
    """What readers see: a store, or a static mirror. Reading may be repeated at will and changes nothing."""

    def checkpoint(self) -> str | None:
        """The newest published checkpoint; None before the first. All its entries and tiles are readable before it is."""

    def tiles(self, tiles: Sequence[Tile]) -> list[bytes]:
        """`ReadTiles`: raises `EvidenceInvalid` (step `tiles`) that names a tile which is missing or narrower than asked."""

    def entries(self, start: int, stop: int) -> Iterator[bytes]:
        """Entries start .. stop-1 in order, in flat memory; `EvidenceInvalid` (step `tiles`) names the first missing one."""


class Storage(Published, Protocol):
    """The three writes, in this order. Each is all or nothing, and on disk when it returns; `TryLater` leaves it undone.

    Any number of processes may call at once. A crash between two of the writes leaves one repair: call `publish`.
    """

    def stage(self, batch: Batch) -> int:
        """Keep the batch where no reader sees it; its number, never used again. Staged twice is two batches."""

    def swap_head(self, old_size: int, staged: int) -> bool:
        """Sequence the staged batch if the head is still at `old_size` with nothing unpublished; whether it did.

        Of all callers with one `old_size` exactly one gets True. After an error other than False the caller cannot know: it
        publishes, and looks at the checkpoint.
        """

    def publish(self) -> None:
        """Show readers the sequenced batch, if there is one, and forget it and all staged batches that came too late.

        May be repeated, and called by any process; the entries and tiles are readable before the checkpoint is.
        """
