"""A log that is kept elsewhere, followed: records handed in, and a whole copy of the log, which shows whether they are in it.

Whoever keeps the log is not believed. The copy only grows by what leads to a checkpoint that the log's key signed, so that a
log with two histories, or one that forgets, is found out by every site that follows it; an anchor is kept when the contract's
storage shows it. docs/decisions/012.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from ledger.core import contracts
from ledger.core.checkpoint import parse_and_verify
from ledger.core.errors import LedgerDisagrees, NeedPermission, Stop
from ledger.core.proof import ProvenState
from ledger.core.stateproof import Header
from ledger.core.trust import Contract
from ledger.log.anchoring import AnchorRow
from ledger.log.log import Log
from ledger.log.sequencing import Queue

AT_ONCE: Final = 1024
"""Records handed in with one request."""
ROUNDS: Final = 64
"""Requests before the log is looked at again."""
AGAIN_S: Final = 10.0
"""What was handed in and is not in the log after this time is handed in again."""


class KeyHeld(NeedPermission):
    """The log's keeper takes nothing of a key any more: two agents signed with it."""

    def __init__(self, key: bytes, message: str) -> None:
        super().__init__(message)
        self.key = key


class Node(Protocol):
    """Who keeps the log. Every method may raise TryLater, and NeedPermission where this site's token is not taken."""

    def submit(self, entries: Sequence[bytes]) -> None:
        """Hands in log entries, those of a key in the order of their counters. Durable there when it returns; may be repeated.

        Raises KeyHeld, FixInput (not taken, and says why).
        """

    def checkpoint(self) -> str: ...

    def entries(self, start: int, stop: int) -> Iterable[bytes]: ...

    def anchors(self, after: int) -> tuple[Sequence[AnchorRow], bool]:
        """Final anchors with their proofs, of sizes above `after`, by size; whether there are more."""


class Book(Protocol):
    """Where anchors are kept: `ledger.store.anchors.AnchorStore`."""

    def final_size(self) -> int: ...

    def put(self, row: AnchorRow) -> None: ...


class Journal(Protocol):
    """What the site signed: `ledger.store.journal.JournalStore`."""

    def queued_entries(self, limit: int, without: Collection[bytes] = ()) -> Sequence[bytes]:
        """The oldest log entries without an index, in the order of sealing, but those of the keys `without`."""

    def bar(self, keys: Iterable[bytes], why: str) -> None: ...


@dataclass(frozen=True)
class Ledger:
    """What the anchors are held against: the AnchorLog and its log. `is_on_chain` says of a header whether the chain has it in
    a final block; None where nobody here can ask it. Raises LedgerUnavailable."""

    anchor_log: Contract
    log_id: bytes
    is_on_chain: Callable[[Header], bool] | None = None


class Following:
    """One site's share in a log that a node keeps. Each step can be repeated after a crash. `clock` in seconds, monotonic."""

    def __init__(
        self, log: Log, journal: Journal, queue: Queue, book: Book, node: Node, ledger: Ledger, clock: Callable[[], float]
    ) -> None:
        self._log, self._journal, self._queue, self._book = log, journal, queue, book
        self._node, self._ledger, self._clock = node, ledger, clock
        self._noted = 0
        self._handed: dict[bytes, float] = {}
        self.held: dict[bytes, str] = {}
        """key id -> why the node takes nothing of it."""

    def waiting(self) -> int:
        """How many of the site's records have no place in the log yet."""
        return self._queue.depth()

    def last_own(self) -> int:
        """The highest place of a record of this site; -1 where none has one."""
        return self._queue.next_index() - 1

    def has_new(self) -> bool:
        """Whether something is queued that was not handed in lately."""
        return bool(self._new(1))

    def hand_in(self) -> int:
        """Hands in what is queued, up to `ROUNDS` requests, but what was handed in within the last seconds and has no place in
        the log yet; how many records. A key that the node holds signs no more here.

        Raises TryLater, NeedPermission, FixInput: what was handed in before is durable at the node.
        """
        entries = self._new(AT_ONCE * ROUNDS)
        done = 0
        while done < len(entries):
            part = entries[done : done + AT_ONCE]
            try:
                self._node.submit(part)
            except KeyHeld as error:
                self.held[error.key] = str(error)
                self._journal.bar([error.key], str(error))
                entries = [*entries[:done], *(entry for entry in entries[done:] if entry[96:128] != error.key)]
                continue
            self._handed |= dict.fromkeys(part, self._clock())
            done += len(part)
        return done

    def _new(self, limit: int) -> list[bytes]:
        now = self._clock()
        self._handed = {entry: at for entry, at in self._handed.items() if now - at < AGAIN_S}
        queued = self._journal.queued_entries(limit + len(self._handed), self.held.keys())
        return [entry for entry in queued if entry not in self._handed][:limit]

    def follow(self) -> int:
        """Brings the copy up to what the node has signed, and notes where this site's records are. Returns how many entries.

        Raises Stop where the log forgets or has two histories, TryLater.
        """
        size = self._log.head().size
        note = self._node.checkpoint()
        signed = parse_and_verify(note, self._log.origin, self._log.public_key)
        if signed.size < size:
            raise Stop(
                f"the node shows a log of {signed.size} records, {size} were seen: it was set back to an old copy, or hides "
                "what it has"
            )
        added = self._log.follow(note, self._node.entries)
        self._note()
        return added

    def settle(self) -> list[AnchorRow]:
        """Takes over the anchors that are final and that the contract's storage shows. Raises Stop, TryLater."""
        taken = []
        more = True
        while more:
            after = self._book.final_size()
            rows, more = self._node.anchors(after)
            for row in rows:
                if row.new_size <= after or row.proof is None:
                    raise LedgerDisagrees("the node gives anchors that were not asked for, or without a proof")
                self._log.follow(row.checkpoint, self._node.entries)
                self._prove(row)
                self._book.put(replace(row, state="final"))
                after = row.new_size
                taken.append(row)
            more = more and bool(rows)
        self._note()
        return taken

    def _prove(self, row: AnchorRow) -> None:
        if row.proof is None or row.block_number is None or row.block_time is None:
            raise LedgerDisagrees(f"the node's anchor for size {row.new_size} has no block")
        signed = parse_and_verify(row.checkpoint, self._log.origin, self._log.public_key)
        if signed.size != row.new_size:
            raise LedgerDisagrees(f"the node's anchor for size {row.new_size} has the checkpoint of another")
        if self._log.root(signed.size) != signed.root:
            raise Stop(f"the log has two histories: the anchor for size {row.new_size} is of another one")
        state = ProvenState(row.proof.header, row.proof.nodes)
        commitment = contracts.anchor_commitment(signed.root, row.old_size, row.block_number, row.block_time, row.beacons)
        stored = state.word(self._ledger.anchor_log, contracts.anchor_slot(self._ledger.log_id, row.new_size))
        if stored != int.from_bytes(commitment, "big"):
            raise LedgerDisagrees(f"the contract's storage shows another anchor for size {row.new_size} than the node says")
        if self._ledger.is_on_chain is not None and not self._ledger.is_on_chain(state.header):
            raise LedgerDisagrees(f"the node proves the anchor for size {row.new_size} by a block that the chain does not have")

    def _note(self) -> None:
        """Notes the indices of this site's records."""
        size = self._log.head().size
        start = max(self._queue.next_index(), min(self._noted, size))
        for at in range(start, size, AT_ONCE):
            found = self._log.entries(at, min(at + AT_ONCE, size))
            self._queue.note_indices({entry: at + offset for offset, entry in enumerate(found)})
        self._noted = size
