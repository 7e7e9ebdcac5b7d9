"""A log that is kept elsewhere, followed: records handed in, and a whole copy of the log, which shows whether they are in it.

Whoever keeps the log is not believed. The copy only grows by what leads to a checkpoint that the log's key signed, so that a
log with two histories, or one that forgets, is found out by every site that follows it; an anchor is kept when the contract's
storage shows it. docs/decisions/012.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from ledger.core import contracts
from ledger.core.checkpoint import Checkpoint, parse_and_verify
from ledger.core.errors import EvidenceInvalid, FixInput, LedgerDisagrees, NeedPermission, Stop
from ledger.core.proof import ProvenState
from ledger.core.stateproof import Header
from ledger.core.trust import Contract
from ledger.log.anchoring import AnchorRow
from ledger.log.log import Log
from ledger.log.sequencing import Queue
from ledger.log.submission import OutOfOrder

AT_ONCE: Final = 1024
"""Records handed in with one request."""
ROUNDS: Final = 64
"""Requests before the log is looked at again."""
AGAIN_S: Final = 10.0
"""What was handed in and is not in the log after this time is handed in again."""
HELD_AGAIN_S: Final = 60.0
"""How often a key that is held is tried again: its operator may have found out which of the two is the device."""
HELD: Final = "two agents sign with this key, says the log node: "
"""How the reason begins for which a key is barred."""


class KeyHeld(NeedPermission):
    """The log's keeper takes nothing of a key any more: two agents signed with it."""

    def __init__(self, key: bytes, message: str) -> None:
        super().__init__(message)
        self.key = key


class Node(Protocol):
    """Who keeps the log. Every method may raise TryLater, and NeedPermission where this site's token is not taken."""

    def submit(self, entries: Sequence[bytes]) -> None:
        """Hands in log entries of one key, in the order of their counters. Durable there when it returns; may be repeated.

        Raises KeyHeld, OutOfOrder (it knows fewer records of the key), FixInput (not taken, and says why).
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

    def entries_of(self, key: bytes, first: int, last: int) -> Sequence[bytes]:
        """The log entries that a key signed, by counter, both ends included."""

    def bar(self, keys: Iterable[bytes], why: str) -> None: ...

    def unbar(self, why: str) -> None: ...

    def barred(self) -> Mapping[bytes, str]: ...


@dataclass(frozen=True)
class Ledger:
    """What the anchors are held against: both contracts and the log's id. `is_on_chain` says of a header whether the chain has
    it in a final block. Raises LedgerUnavailable where nobody can tell."""

    anchor_log: Contract
    device_registry: Contract
    log_id: bytes
    is_on_chain: Callable[[Header], bool]


class Following:
    """One site's share in a log that a node keeps. Each step can be repeated after a crash. `clock` in seconds, monotonic;
    `denounce` keeps two notes, both signed by the log's key, that contradict each other: proof for others."""

    def __init__(
        self,
        log: Log,
        journal: Journal,
        queue: Queue,
        book: Book,
        node: Node,
        ledger: Ledger,
        clock: Callable[[], float],
        denounce: Callable[[str, str], None],
    ) -> None:
        self._log, self._journal, self._queue, self._book = log, journal, queue, book
        self._node, self._ledger, self._clock, self._denounce = node, ledger, clock, denounce
        self._noted = 0
        self._handed: dict[bytes, float] = {}
        self._try_again: dict[bytes, float] = {}
        self.held: dict[bytes, str] = {}
        """key id -> why the node takes nothing of it."""

    def waiting(self) -> int:
        """How many of the site's records have no place in the log yet."""
        return self._queue.depth()

    def is_waiting(self) -> bool:
        """Whether one of them is of a key that the node takes."""
        return bool(self._journal.queued_entries(1, self.held.keys()))

    def last_own(self) -> int:
        """The highest place of a record of this site; -1 where none has one."""
        return self._queue.next_index() - 1

    def has_new(self) -> bool:
        """Whether something is queued that was not handed in lately."""
        return bool(self._new(1))

    def hand_in(self) -> int:
        """Hands in what is queued, up to `ROUNDS` requests, but what was handed in within the last seconds and has no place in
        the log yet; how many records. A key that the node holds signs no more here, until it is taken again.

        Raises TryLater; NeedPermission, FixInput of one key, after the others were handed in. What was handed in before is
        durable at the node.
        """
        keys: dict[bytes, list[bytes]] = {}
        for entry in self._new(AT_ONCE * ROUNDS):
            keys.setdefault(entry[96:128], []).append(entry)
        done, errors = 0, []
        for key, entries in keys.items():
            try:
                done += self._hand_in(key, entries)
            except KeyHeld as error:
                self.held[key] = HELD + str(error)
                self._try_again[key] = self._clock() + HELD_AGAIN_S
                self._journal.bar([key], self.held[key])
            except (NeedPermission, FixInput) as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return done

    def _hand_in(self, key: bytes, entries: Sequence[bytes]) -> int:
        start, caught_up = 0, False
        while start < len(entries):
            # Of a key that is held one record tells whether it still is.
            part = entries[start : start + (1 if key in self.held else AT_ONCE)]
            try:
                self._node.submit(part)
            except OutOfOrder as error:
                # Put back from a copy it has forgotten records that it had taken.
                missing = self._journal.entries_of(key, error.next_counter, _counter(part[0]) - 1)
                if caught_up or not missing:
                    raise
                caught_up = True
                for at in range(0, len(missing), AT_ONCE):
                    self._node.submit(missing[at : at + AT_ONCE])
                continue
            self._release(key)
            self._handed |= dict.fromkeys(part, self._clock())
            start += len(part)
        return len(entries)

    def _release(self, key: bytes) -> None:
        """The node takes the key: it signs again, where it was barred for that alone."""
        self.held.pop(key, None)
        why = self._journal.barred().get(key, "")
        if why.startswith(HELD):
            self._journal.unbar(why)

    def _new(self, limit: int) -> list[bytes]:
        now = self._clock()
        self._handed = {entry: at for entry, at in self._handed.items() if now - at < AGAIN_S}
        without = [key for key in self.held if now < self._try_again[key]]
        queued = self._journal.queued_entries(limit + len(self._handed), without)
        return [entry for entry in queued if entry not in self._handed][:limit]

    def follow(self) -> int:
        """Brings the copy up to what the node has signed, and notes where this site's records are. Returns how many entries.

        Raises Stop where the log is another one, forgets, or has two histories; TryLater.
        """
        note = self._node.checkpoint()
        signed, size = self._signed(note), self._log.head().size
        if signed.size < size:
            self._denounce(self._log.checkpoint(), note)
            raise Stop(
                f"the node shows a log of {signed.size} records, {size} were seen: it was set back to an old copy, or hides "
                "what it has"
            )
        added = self._followed(note)
        self._note()
        return added

    def _followed(self, note: str) -> int:
        try:
            return self._log.follow(note, self._node.entries)
        except Stop:
            if self._log.head().size:
                self._denounce(self._log.checkpoint(), note)
            raise

    def _signed(self, note: str) -> Checkpoint:
        try:
            return parse_and_verify(note, self._log.origin, self._log.public_key)
        except EvidenceInvalid as error:
            raise Stop(f"the node shows another log than that of the trust file ({error}): is it the right node?") from error

    def settle(self) -> list[AnchorRow]:
        """Takes over the anchors that are final and that the contract's storage shows. Raises Stop, TryLater."""
        taken = []
        more = True
        while more:
            after = self._book.final_size()
            rows, more = self._node.anchors(after)
            for row in rows:
                if row.new_size <= after:
                    raise LedgerDisagrees("the node gives anchors that were not asked for")
                self._prove(row)
                self._book.put(replace(row, state="final"))
                after = row.new_size
                taken.append(row)
            more = more and bool(rows)
        self._note()
        return taken

    def _prove(self, row: AnchorRow) -> None:
        """Raises Stop or LedgerDisagrees unless all of this holds:

        1. the checkpoint is signed by the log, for the anchor's size, and continues what was seen;
        2. the AnchorLog's storage has the anchor, under a header that is not older than its block;
        3. the same state tells of every key that signed the records it anchors, so that a bundle can show them;
        4. the header is a final block of the chain.
        """
        where = f"the node's anchor for size {row.new_size}"
        if row.proof is None or row.block_number is None or row.block_time is None:
            raise LedgerDisagrees(f"{where} has no proof")
        # 1
        signed = self._signed(row.checkpoint)
        if signed.size != row.new_size:
            raise LedgerDisagrees(f"{where} has the checkpoint of another size")
        if not row.old_size < row.new_size:
            raise LedgerDisagrees(f"{where} begins after its end")
        self._followed(row.checkpoint)
        commitment = contracts.anchor_commitment(signed.root, row.old_size, row.block_number, row.block_time, row.beacons)
        try:
            # 2
            state = ProvenState(row.proof.header, row.proof.nodes)
            stored = state.word(self._ledger.anchor_log, contracts.anchor_slot(self._ledger.log_id, row.new_size))
            # 3
            for key in {entry[96:128] for entry in self._log.entries(row.old_size, row.new_size)}:
                for slot in contracts.key_slots(key):
                    state.word(self._ledger.device_registry, slot)
        except EvidenceInvalid as error:
            raise LedgerDisagrees(f"{where} is not proven: {error}") from error
        if stored != int.from_bytes(commitment, "big"):
            raise LedgerDisagrees(f"the contract's storage shows another anchor for size {row.new_size} than the node says")
        if state.header.number < row.block_number or state.header.timestamp < row.block_time:
            raise LedgerDisagrees(f"{where} is proven by a block that is older than it")
        # 4
        if not self._ledger.is_on_chain(state.header):
            raise LedgerDisagrees(f"{where} is proven by a block that the chain does not have")

    def _note(self) -> None:
        """Notes the indices of this site's records."""
        size = self._log.head().size
        start = max(self._queue.next_index(), min(self._noted, size))
        for at in range(start, size, AT_ONCE):
            found = self._log.entries(at, min(at + AT_ONCE, size))
            self._queue.note_indices({entry: at + offset for offset, entry in enumerate(found)})
        self._noted = size


def _counter(entry: bytes) -> int:
    """The counter of a record: word 4 of its entry."""
    return int.from_bytes(entry[128:160], "big")
