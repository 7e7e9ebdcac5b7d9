"""From the journal into the log, from the log onto the chain, and back again after a re-org. DESIGN §5, FORMAT.md §5.

A record is queued (journal), sequenced (log), included (an anchor's block), safe, final. Each step can be repeated after a
crash:
what is already done is seen on the other side (the log's entries, the chain's storage) before it is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from ledger.core import contracts, evidence, merkle
from ledger.core.checkpoint import parse_and_verify
from ledger.core.contracts import Beacon
from ledger.core.errors import LedgerDisagrees, Stop
from ledger.core.proof import ProvenState
from ledger.core.trust import Contract
from ledger.log.log import Log

State = Literal["sequenced", "included", "safe", "final"]
ORDER: tuple[State, ...] = ("sequenced", "included", "safe", "final")
BATCH = 8192
"""Entries sequenced with one append."""
BEACON_LIMIT = 4
"""Beacons that one anchor names: the newest of its batch."""


@dataclass(frozen=True)
class AnchorRow:
    """An anchor as the site knows it; the block's facts are None until it is included, `proof` until it is final."""

    new_size: int
    old_size: int
    checkpoint: str
    beacons: tuple[Beacon, ...]
    state: State = "sequenced"
    block_number: int | None = None
    block_hash: bytes | None = None
    block_time: int | None = None
    gas_used: int | None = None
    proof: evidence.State | None = None


@dataclass(frozen=True)
class Sighting:
    """An anchor as the chain has it now; `beacons` with the hashes that the contract looked up."""

    block_number: int
    block_hash: bytes
    block_time: int
    gas_used: int
    beacons: tuple[Beacon, ...]
    state: State


class Queue(Protocol):
    """The journal, as far as the way into the log needs it. Reading may be repeated; `sequenced` is durable when it returns."""

    def queued_entries(self, limit: int) -> Sequence[bytes]:
        """The oldest log entries that have no index yet, in the order of sealing."""

    def next_index(self) -> int:
        """One more than the highest log index noted."""

    def note_indices(self, indices: Mapping[bytes, int]) -> None:
        """entry -> log index."""


class Book(Protocol):
    """The site's anchors. Each write is durable when it returns and may be repeated."""

    def rows(self) -> Sequence[AnchorRow]:
        """All anchors, by size."""

    def put(self, row: AnchorRow) -> None:
        """Writes a row, replacing one of the same new_size."""

    def drop(self, new_size: int) -> None:
        """Forgets an anchor that a re-org took away."""


class Chain(Protocol):
    """The AnchorLog. Methods raise LedgerUnavailable (ask again) or LedgerDisagrees (a lying node); nothing is lost by
    either."""

    def anchored_size(self, log_id: bytes) -> int:
        """The head's size in the newest block."""

    def anchor(
        self, log_id: bytes, old_size: int, new_size: int, root: bytes, beacons: Sequence[int], leaves: Sequence[bytes] | None
    ) -> object:
        """Sends the anchor and waits until a block has it. With `leaves` they are published in the calldata."""

    def sighting(self, log_id: bytes, new_size: int, beacons: Sequence[int]) -> Sighting | None:
        """Where the anchor for a size is now; None when the chain has none (never sent, dropped, or re-orged away)."""

    def proof(self, log_id: bytes, size: int, keys: Sequence[bytes]) -> evidence.State:
        """A state proof of this anchor and these keys, at the newest final block."""


class Anchoring:
    """Carries one site's records from its journal to the chain."""

    def __init__(self, log: Log, queue: Queue, book: Book, chain: Chain, log_id: bytes, anchor_log: Contract) -> None:
        self._log, self._queue, self._book, self._chain = log, queue, book, chain
        self._log_id, self._anchor_log = log_id, anchor_log

    def sequence(self, progress: Callable[[int], None]) -> int:
        """Moves everything queued into the log. Returns how many entries."""
        moved = self._recover()
        while entries := self._queue.queued_entries(BATCH):
            indices = self._log.append(entries)
            self._queue.note_indices(dict(zip(entries, indices, strict=True)))
            moved += len(entries)
            progress(moved)
        return moved

    def _recover(self) -> int:
        """Notes entries that a crashed run put into the log without noting it, so that none is appended twice."""
        size, known = self._log.head().size, self._queue.next_index()
        if known > size:
            raise Stop(f"the journal knows {known} sequenced records, the log has {size}: the log's store is an old copy")
        found = {entry: known + offset for offset, entry in enumerate(self._log.entries(known, size))}
        if found:
            self._queue.note_indices(found)
        return len(found)

    def submit(self, *, publish_leaves: bool = False) -> bool:
        """Anchors the log's head if the chain is behind. Returns whether a transaction was sent.

        Raises Stop when the chain is ahead of the log: then this log is an old copy, and anchoring it would fork it.
        """
        head = self._log.head()
        anchored = self._chain.anchored_size(self._log_id)
        if anchored > head.size:
            raise Stop(
                f"the chain has an anchor for {anchored} records, this log has {head.size}: restore the newest copy of it"
            )
        if anchored == head.size:
            return False
        entries = list(self._log.entries(anchored, head.size))
        beacons = _beacons(entries)
        row = AnchorRow(head.size, anchored, self._log.checkpoint(), beacons)
        self._book.put(row)
        leaves = [merkle.leaf_hash(entry) for entry in entries] if publish_leaves else None
        self._chain.anchor(self._log_id, anchored, head.size, head.root, [beacon.number for beacon in beacons], leaves)
        return True

    def settle(self) -> dict[str, int]:
        """Asks the chain where each unsettled anchor is now, forgets those that a re-org took, and keeps a state proof of
        those that
        are final. Returns how many anchors are in each state. After a re-org call `submit` again."""
        for row in self._book.rows():
            if row.state == "final" and row.proof is not None:
                continue
            seen = self._chain.sighting(self._log_id, row.new_size, [beacon.number for beacon in row.beacons])
            if seen is None:
                if row.state != "sequenced" or self._is_overtaken(row):
                    self._book.drop(row.new_size)
                continue
            updated = AnchorRow(
                row.new_size,
                row.old_size,
                row.checkpoint,
                seen.beacons,
                seen.state,
                seen.block_number,
                seen.block_hash,
                seen.block_time,
                seen.gas_used,
            )
            if seen.state == "final":
                updated = replace(updated, proof=self._proof(updated))
            self._book.put(updated)
        counts: dict[str, int] = {}
        for row in self._book.rows():
            counts[row.state] = counts.get(row.state, 0) + 1
        return counts

    def _proof(self, row: AnchorRow) -> evidence.State:
        """The chain's proof, kept only after it proves what a verifier will ask of it."""
        keys = {_key(entry) for entry in self._log.entries(row.old_size, row.new_size)}
        state = self._chain.proof(self._log_id, row.new_size, sorted(keys))
        stored = ProvenState(state.header, state.nodes).word(
            self._anchor_log, contracts.anchor_slot(self._log_id, row.new_size)
        )
        root = parse_and_verify(row.checkpoint, self._log.origin, self._log.public_key).root
        expected = contracts.anchor_commitment(root, row.old_size, row.block_number or 0, row.block_time or 0, row.beacons)
        if stored != int.from_bytes(expected, "big"):
            raise LedgerDisagrees(f"the node's proof shows another anchor for size {row.new_size} than its events do")
        return state

    def _is_overtaken(self, row: AnchorRow) -> bool:
        """Whether the chain went on without this anchor, so that it can never be included any more."""
        return self._chain.anchored_size(self._log_id) > row.old_size


def _beacons(entries: Sequence[bytes]) -> tuple[Beacon, ...]:
    """The newest distinct beacons that the records name: words 7 and 8 of an entry (FORMAT.md §3)."""
    named = {Beacon(int.from_bytes(entry[224:256], "big"), entry[256:288]) for entry in entries}
    return tuple(sorted(named, key=lambda beacon: beacon.number))[-BEACON_LIMIT:]


def _key(entry: bytes) -> bytes:
    """The key that signed a record: word 3 of its entry."""
    return entry[96:128]
