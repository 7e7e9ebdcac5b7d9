"""The log: entries in, in one order for all; checkpoints and proofs out. FORMAT.md §4."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from ledger.core import merkle
from ledger.core.checkpoint import Checkpoint, parse_and_verify, sign
from ledger.core.errors import EvidenceInvalid, FixInput, NeedPermission, Stop, TryLater
from ledger.core.merkle import Tile
from ledger.log.mirror import export
from ledger.log.storage import Batch, Storage

Proof = TypeVar("Proof")
BATCH_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of the entries of one batch."""
FOLLOW_LIMIT: Final = 1 << 18
"""Entries of one step of following a log that is kept elsewhere."""
FOLLOW_BYTES: Final = 256 << 20
"""Bytes of these entries."""


class Log:
    """The log `origin`, signed by one Ed25519 key (`public_key`, 32 raw bytes), kept in `storage`.

    `signer` turns bytes into a 64-byte signature; without it the log can only be read. Opening a log for writing repairs what a
    crash left and raises `Stop` when the tree in the store is not the one that was signed, `EvidenceInvalid` when the
    store holds the log of another origin or key.

    Any number of threads and processes may share a store: of two appends at the same moment one is sequenced and the other gets
    `TryLater`. What no store can notice by itself is that it was restored from an old copy; the anchor on chain does.
    """

    def __init__(
        self, storage: Storage, origin: str, public_key: bytes, signer: Callable[[bytes], bytes] | None = None
    ) -> None:
        self.origin = origin
        self.public_key = public_key
        self._storage = storage
        self._signer = signer
        if signer is not None:
            self.repair()

    def repair(self) -> None:
        """Publish what was sequenced and not published; then hold the tree's right edge against the signed root."""
        self._storage.publish()
        self._verified_head(self._storage.tiles)

    def append(self, entries: Sequence[bytes], at: int | None = None) -> range:
        """The indices of these entries (1 to 65,535 bytes each, 64 MiB together), sequenced as one batch under one checkpoint.
        With `at` only if the log has that size.

        1. publish what a crashed process left, and read the head;
        2. hold the tree's right edge against its signed root, so that a damaged store is never signed over;
        3. stage the entries, the tiles that grow and the signed checkpoint;
        4. compare-and-swap the head: from here on the entries have these indices for ever;
        5. publish.

        Raises `TryLater` with nothing appended when another process was faster or the store is locked or full. After a crash or
        an error in step 4 a caller that must not append twice compares `entries(old size, new size)` first.
        """
        if self._signer is None:
            raise NeedPermission(f"the log {self.origin} is open for reading only: its key is not here")
        if any(not entry for entry in entries):
            raise FixInput("an entry is empty")
        if sum(map(len, entries)) > BATCH_LIMIT:
            raise FixInput(f"a batch has more than {BATCH_LIMIT} bytes: append it in parts")
        # 1
        self._storage.publish()
        read: dict[Tile, bytes] = {}
        # 2
        head = self._verified_head(lambda tiles: self._remembered(tiles, read))
        if at is not None and head.size != at:
            raise TryLater(f"another process appended to {self.origin}, it has {head.size} entries now: look, and append again")
        if not entries:
            return range(head.size, head.size)
        # 3
        size = head.size + len(entries)
        leaves = [merkle.leaf_hash(entry) for entry in entries]
        grown = merkle.appended_tiles(head.size, leaves, lambda tiles: self._remembered(tiles, read))
        read.update(grown)
        root = merkle.root_from_tiles(size, lambda tiles: self._remembered(tiles, read))
        note = sign(Checkpoint(self.origin, size, root), self.public_key, self._signer)
        staged = self._storage.stage(Batch(head.size, size, entries, grown, note))
        # 4
        if not self._storage.swap_head(head.size, staged):
            raise TryLater(f"another process appended to {self.origin} at the same moment: append again")
        # 5
        # Sequenced and on disk: passing "try later" on would have it appended twice. The next call publishes it.
        with suppress(TryLater):
            self._storage.publish()
        return range(head.size, size)

    def follow(self, note: str, read: Callable[[int, int], Iterable[bytes]]) -> int:
        """Brings this copy of a log that is kept elsewhere up to its signed checkpoint `note`; how many entries that were.
        `read(start, stop)` gives the entries there. Nothing of it is believed but what the signature covers:

        1. the checkpoint is signed by the log's key; a shorter one than this copy begins it;
        2. the entries that are read, after those that are here, lead to its root;
        3. they are kept with it.

        Raises `Stop` where the log has two histories (it signed another tree than the one that begins with this copy);
        `EvidenceInvalid` where the checkpoint is not the log's; `TryLater` as `append`.
        """
        self._storage.publish()
        read_tiles: dict[Tile, bytes] = {}

        def tiles(wanted: Sequence[Tile]) -> list[bytes]:
            return self._remembered(wanted, read_tiles)

        # 1
        head, signed = self._verified_head(tiles), parse_and_verify(note, self.origin, self.public_key)
        if signed.size <= head.size:
            if signed.size and merkle.root_from_tiles(signed.size, tiles) != signed.root:
                raise Stop(f"the log {self.origin} has two histories: they differ before entry {signed.size}")
            return 0
        if signed.size - head.size > FOLLOW_LIMIT:
            raise TryLater(f"the log {self.origin} is {signed.size - head.size} entries ahead: follow it in parts")
        # 2
        entries, length = [], 0
        for entry in islice(read(head.size, signed.size), FOLLOW_LIMIT):
            entries.append(entry)
            length += len(entry)
            if length > FOLLOW_BYTES:
                raise TryLater(f"the log {self.origin} gives more than {FOLLOW_BYTES >> 20} MiB at once: follow it in parts")
        if len(entries) != signed.size - head.size:
            raise TryLater(f"the log {self.origin} gave {len(entries)} of {signed.size - head.size} entries")
        grown = merkle.appended_tiles(head.size, [merkle.leaf_hash(entry) for entry in entries], tiles)
        read_tiles.update(grown)
        if merkle.root_from_tiles(signed.size, tiles) != signed.root:
            raise Stop(
                f"the log {self.origin} has two histories: what it gives after entry {head.size} is not what it signed at "
                f"{signed.size}, or does not begin with what it gave before"
            )
        # 3
        staged = self._storage.stage(Batch(head.size, signed.size, entries, grown, note))
        if not self._storage.swap_head(head.size, staged):
            raise TryLater(f"another process follows {self.origin} at the same moment: follow it again")
        with suppress(TryLater):
            self._storage.publish()
        return len(entries)

    def checkpoint(self) -> str:
        """The newest signed checkpoint. A log that is still empty signs size 0 when it can, else raises `FixInput`."""
        if self._signer is not None:
            self._storage.publish()
        note = self._storage.checkpoint()
        if note is not None:
            return note
        if self._signer is None:
            raise FixInput(f"the log {self.origin} is empty: it has no checkpoint yet")
        return sign(Checkpoint(self.origin, 0, merkle.root_of([])), self.public_key, self._signer)

    def head(self) -> Checkpoint:
        """The newest checkpoint, its signature verified; size 0 for a log that is still empty."""
        if self._signer is not None:
            self._storage.publish()
        return self._head()

    def root(self, size: int) -> bytes:
        """The tree head of the first `size` entries, of the store's tiles. `FixInput` when the log is shorter."""
        return self._proof(size, lambda: merkle.root_from_tiles(size, self._storage.tiles))

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """RFC 9162 §2.1.3 proof of leaf `index` in the tree of the first `size` leaves. `FixInput` outside of the log."""
        return self._proof(size, lambda: merkle.inclusion_from_tiles(index, size, self._storage.tiles))

    def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]:
        """RFC 9162 §2.1.4 proof that the first `old_size` leaves begin the tree of `new_size`; both 1 or more."""
        return self._proof(new_size, lambda: merkle.consistency_from_tiles(old_size, new_size, self._storage.tiles))

    def entry(self, index: int) -> bytes:
        """Entry `index` as it was appended. `FixInput` when the log is shorter."""
        return next(self.entries(index, index + 1))

    def entries(self, start: int, stop: int) -> Iterator[bytes]:
        """Entries start .. stop-1, in flat memory. `FixInput` when the log is shorter."""
        size = self.head().size
        if not 0 <= start <= stop <= size:
            raise FixInput(f"entries {start} to {stop} are not all in a log of size {size}")
        return self._storage.entries(start, stop)

    def export(self, folder: Path) -> Checkpoint:
        """Bring the static mirror (C2SP tlog-tiles) in `folder` up to the newest checkpoint; see `ledger.log.mirror.export`."""
        return export(self._storage, self.checkpoint(), self.origin, self.public_key, folder)

    def _head(self) -> Checkpoint:
        note = self._storage.checkpoint()
        if note is None:
            return Checkpoint(self.origin, 0, merkle.root_of([]))
        return parse_and_verify(note, self.origin, self.public_key)

    def _verified_head(self, read: merkle.ReadTiles) -> Checkpoint:
        head = self._head()
        try:
            root = merkle.root_from_tiles(head.size, read)
        except EvidenceInvalid as error:
            raise _damaged(str(error)) from error
        if root != head.root:
            raise _damaged(f"its tiles do not lead to the signed root of size {head.size}")
        return head

    def _remembered(self, tiles: Sequence[Tile], read: dict[Tile, bytes]) -> list[bytes]:
        unread = [tile for tile in tiles if tile not in read]
        if unread:
            read.update(zip(unread, self._storage.tiles(unread), strict=True))
        return [read[tile] for tile in tiles]

    def _proof(self, size: int, prove: Callable[[], Proof]) -> Proof:
        try:
            return prove()
        except EvidenceInvalid as error:
            head = self.head()
            if size > head.size:
                raise FixInput(f"the log has {head.size} leaves, not {size}") from error
            raise _damaged(str(error)) from error


def _damaged(reason: str) -> Stop:
    return Stop(f"the log's store is damaged: {reason}; restore it from a copy")
