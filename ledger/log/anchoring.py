"""From the log onto the chain, and back again after a re-org. DESIGN §5, FORMAT.md §5.

A record is sequenced (log), included (an anchor's block), safe, final. Each step can be repeated after a crash: what is already
done is seen on the other side (the chain's storage) before it is done again. What a transaction may cost is in the book before
it is sent, and stays there until the chain says at a final block what it did cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from ledger.core import contracts, evidence, merkle
from ledger.core.checkpoint import Checkpoint, parse_and_verify
from ledger.core.contracts import Beacon
from ledger.core.errors import LedgerDisagrees, Stop
from ledger.core.proof import ProvenState
from ledger.core.trust import Contract
from ledger.log.log import Log

State = Literal["sequenced", "included", "safe", "final"]
ORDER: tuple[State, ...] = ("sequenced", "included", "safe", "final")
BEACON_LIMIT = 4
"""Beacons that one anchor names: the newest of its batch."""


@dataclass(frozen=True)
class AnchorRow:
    """An anchor as the site knows it; the block's facts are None until it is included, `proof` until it is final.

    `sent`: when it was last sent, seconds since 1970; `fee_wei`: what the transaction cost that a block took.
    """

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
    fee_wei: int | None = None
    sent: int | None = None

    def not_on_chain(self) -> AnchorRow:
        """The same anchor after a re-org took its block."""
        return AnchorRow(self.new_size, self.old_size, self.checkpoint, self.beacons, sent=self.sent)


@dataclass(frozen=True)
class Sighting:
    """An anchor as the chain has it now; `beacons` with the hashes that the contract looked up."""

    old_size: int
    block_number: int
    block_hash: bytes
    block_time: int
    gas_used: int
    fee_wei: int
    root: bytes
    beacons: tuple[Beacon, ...]
    state: State


@dataclass(frozen=True)
class View:
    """What the chain's storage holds in its newest block: the head's size, a commitment for each size that was asked for (32
    zero bytes for none), and which of the keys that were asked for are revoked; how far the chain is safe and final."""

    anchored_size: int
    commitments: Mapping[int, bytes]
    safe: int
    final: int
    revoked: frozenset[bytes]

    def state(self, block_number: int) -> State:
        if block_number <= self.final:
            return "final"
        return "safe" if block_number <= self.safe else "included"


@dataclass(frozen=True)
class Market:
    """Wei that a unit of gas costs in the next block, and that the account has."""

    price_wei: int
    balance_wei: int


@dataclass(frozen=True)
class Payment:
    """What a mined transaction cost, and whether its block is final."""

    fee_wei: int
    is_final: bool


@dataclass(frozen=True)
class Sent:
    """A transaction that was noted before it was sent. `fee_wei` is None while no block is known to have it."""

    transaction: bytes
    nonce: int
    most_wei: int
    fee_wei: int | None


class Book(Protocol):
    """The site's anchors. Each write is durable when it returns and may be repeated."""

    def unsettled(self) -> Sequence[AnchorRow]:
        """The anchors without a proof, by size."""

    def row(self, new_size: int) -> AnchorRow | None: ...

    def final_size(self) -> int:
        """The largest size of a final anchor."""

    def put(self, row: AnchorRow) -> None:
        """Writes a row, replacing one of the same new_size."""

    def drop(self, new_size: int) -> None:
        """Forgets an anchor that can never be included any more."""


class Purse(Protocol):
    """The transactions of the site's account, as far as their cost is not settled. Writes are durable and may be repeated."""

    def open(self) -> Sequence[Sent]:
        """Those whose end is not final."""

    def settle(self, transaction: bytes, fee_wei: int | None, *, is_final: bool) -> None:
        """Notes what a transaction cost: None for not known (it may yet be mined), 0 for one that never can be."""


class Chain(Protocol):
    """The AnchorLog. Methods raise LedgerUnavailable (ask again) or LedgerDisagrees (a lying node); nothing is lost by
    either."""

    def view(self, log_id: bytes, sizes: Sequence[int], keys: Sequence[bytes]) -> View:
        """What storage holds in the newest block."""

    def market(self) -> Market:
        """What anchoring costs now."""

    def anchor(
        self,
        log_id: bytes,
        old_size: int,
        new_size: int,
        root: bytes,
        beacons: Sequence[int],
        leaves: Sequence[bytes] | None,
        most_wei: int | None,
    ) -> object:
        """Sends the anchor and waits until a block has it. With `leaves` they are published in the calldata."""

    def sighting(self, log_id: bytes, new_size: int, beacons: Sequence[int]) -> Sighting | None:
        """Where the anchor for a size is now; None when the chain has none (never sent, dropped, or re-orged away)."""

    def proof(self, log_id: bytes, size: int, keys: Sequence[bytes]) -> evidence.State:
        """A state proof of this anchor and these keys, at the newest final block."""

    def payments(self, transactions: Sequence[bytes]) -> tuple[int, Sequence[Payment | None]]:
        """(the account's next nonce at the newest final block, what each transaction cost: None for one in no block)."""


class Anchoring:
    """Carries one site's log to the chain."""

    def __init__(self, log: Log, book: Book, purse: Purse, chain: Chain, log_id: bytes, anchor_log: Contract) -> None:
        self._log, self._book, self._purse, self._chain = log, book, purse, chain
        self._log_id, self._anchor_log = log_id, anchor_log
        self._vouched = 0
        self._signers: dict[bytes, None] = {}
        self._signers_upto = 0

    def look(self) -> View:
        """What the chain has of the log, and whether keys that signed what waits are revoked.

        Raises Stop when the chain has another history than this log (an old copy was restored): anchoring would fork it;
        LedgerDisagrees when it has less than what was final.
        """
        sizes = [row.new_size for row in self._book.unsettled()]
        view = self._chain.view(self._log_id, sizes, list(self._signers))
        final = self._book.final_size()
        if view.anchored_size < final:
            raise LedgerDisagrees(
                f"the chain has anchors for {view.anchored_size} records, and {final} were final: the node is behind or lies, "
                "or the chain was set back; compare it with another node"
            )
        self._vouch(view.anchored_size)
        self._read_signers(view.anchored_size)
        return view

    def market(self) -> Market:
        return self._chain.market()

    def submit(self, view: View, now: int, *, publish_leaves: bool = False, most_wei: int | None = None) -> bool:
        """Anchors the log's head if the chain is behind; only on a view that was settled. Returns whether a transaction was
        sent. `now` in seconds since 1970."""
        checkpoint = self._log.checkpoint()
        head, anchored = self._parsed(checkpoint), view.anchored_size
        if anchored >= head.size:
            return False
        entries = list(self._log.entries(anchored, head.size))
        beacons = _beacons(entries)
        self._book.put(AnchorRow(head.size, anchored, checkpoint, beacons, sent=now))
        leaves = [merkle.leaf_hash(entry) for entry in entries] if publish_leaves else None
        numbers = [beacon.number for beacon in beacons]
        self._chain.anchor(self._log_id, anchored, head.size, head.root, numbers, leaves, most_wei)
        return True

    def settle(self, view: View) -> list[AnchorRow]:
        """Notes where each unsettled anchor is now, and keeps a state proof of those that are final: these are returned.

        An anchor that a re-org took is `sequenced` again: its transaction may come back by itself, else `submit` sends a new
        one. It is forgotten when a final anchor stands in its place.
        """
        proven = []
        for row in self._book.unsettled():
            stored = view.commitments.get(row.new_size)
            if stored is None:
                continue  # sent after the chain was looked at
            if not any(stored):
                self._not_there(row)
            elif self._commitment(row) != stored or view.state(row.block_number or 0) == "final":
                updated = self._seen(row)
                if updated is not None and updated.proof is not None:
                    proven.append(updated)
            elif view.state(row.block_number or 0) != row.state:
                self._book.put(replace(row, state=view.state(row.block_number or 0)))
        return proven

    def settle_payments(self) -> int:
        """Asks what the transactions cost that were sent; returns how many are in blocks that are not final yet. One of which
        no block has a trace costs nothing only when a final block has another transaction with its nonce."""
        sent = self._purse.open()
        if not sent:
            return 0
        next_nonce, found = self._chain.payments([one.transaction for one in sent])
        for one, payment in zip(sent, found, strict=True):
            if payment is not None:
                if payment.fee_wei > one.most_wei:
                    raise LedgerDisagrees("the node says that a transaction cost more than it can have cost")
                self._purse.settle(one.transaction, payment.fee_wei, is_final=payment.is_final)
            elif one.nonce < next_nonce:
                self._purse.settle(one.transaction, 0, is_final=True)
            elif one.fee_wei is not None:
                self._purse.settle(one.transaction, None, is_final=False)
        return sum(payment is not None and not payment.is_final for payment in found)

    def _not_there(self, row: AnchorRow) -> None:
        if row.state != "sequenced":
            self._book.put(row.not_on_chain())
        elif self._book.final_size() > row.old_size:
            self._book.drop(row.new_size)

    def _seen(self, row: AnchorRow) -> AnchorRow | None:
        """The row as the chain has it now, kept; None where a re-org took it in this moment."""
        seen = self._chain.sighting(self._log_id, row.new_size, [beacon.number for beacon in row.beacons])
        if seen is None:
            return None
        if seen.root != self._root(row):
            raise _forked(row.new_size)
        updated = replace(
            row,
            old_size=seen.old_size,  # another process with this store may have anchored it, on top of another head
            beacons=seen.beacons,
            state=seen.state,
            block_number=seen.block_number,
            block_hash=seen.block_hash,
            block_time=seen.block_time,
            gas_used=seen.gas_used,
            fee_wei=seen.fee_wei,
        )
        if seen.state == "final":
            updated = replace(updated, proof=self._proof(updated))
        self._book.put(updated)
        return updated

    def _proof(self, row: AnchorRow) -> evidence.State:
        """The chain's proof, kept only after it proves what a verifier will ask of it."""
        keys = {_key(entry) for entry in self._log.entries(row.old_size, row.new_size)}
        state = self._chain.proof(self._log_id, row.new_size, sorted(keys))
        stored = ProvenState(state.header, state.nodes).word(
            self._anchor_log, contracts.anchor_slot(self._log_id, row.new_size)
        )
        if stored != int.from_bytes(self._commitment(row), "big"):
            raise LedgerDisagrees(f"the node's proof shows another anchor for size {row.new_size} than its events do")
        return state

    def _commitment(self, row: AnchorRow) -> bytes:
        """What storage holds if this row says the truth; for one without a block nothing that it can hold."""
        if row.block_number is None or row.block_time is None:
            return b""
        return contracts.anchor_commitment(self._root(row), row.old_size, row.block_number, row.block_time, row.beacons)

    def _root(self, row: AnchorRow) -> bytes:
        return self._parsed(row.checkpoint).root

    def _parsed(self, checkpoint: str) -> Checkpoint:
        return parse_and_verify(checkpoint, self._log.origin, self._log.public_key)

    def _vouch(self, anchored: int) -> None:
        """Holds the chain's head against this log, and writes the row of an anchor that this store has forgotten."""
        if anchored in (0, self._vouched):
            return
        checkpoint = self._log.checkpoint()
        head = self._parsed(checkpoint)
        if anchored > head.size:
            raise Stop(
                f"the chain has an anchor for {anchored} records, this log has {head.size}: it is an old copy, restore the "
                "newest copy of it"
            )
        if self._book.row(anchored) is None:
            seen = self._chain.sighting(self._log_id, anchored, ())
            if seen is None:
                return  # a re-org in this moment
            if seen.root != self._log.root(anchored):
                raise _forked(anchored)
            if anchored == head.size:  # else the next anchor covers its records
                self._book.put(AnchorRow(anchored, seen.old_size, checkpoint, seen.beacons))
        self._vouched = anchored

    def _read_signers(self, anchored: int) -> None:
        """Keys that signed what is not anchored: words 3 of the entries, read once each."""
        size = self._log.head().size
        if anchored >= size:
            self._signers, self._signers_upto = {}, size
            return
        start = max(anchored, min(self._signers_upto, size))
        self._signers |= dict.fromkeys(_key(entry) for entry in self._log.entries(start, size))
        self._signers_upto = size


def _forked(size: int) -> Stop:
    return Stop(
        f"the chain's anchor for {size} records is of another history than this log: an old copy was restored and went on; "
        "restore the newest copy"
    )


def _beacons(entries: Sequence[bytes]) -> tuple[Beacon, ...]:
    """The newest distinct beacons that the records name: words 7 and 8 of an entry (FORMAT.md §3)."""
    named = {Beacon(int.from_bytes(entry[224:256], "big"), entry[256:288]) for entry in entries}
    return tuple(sorted(named, key=lambda beacon: beacon.number))[-BEACON_LIMIT:]


def _key(entry: bytes) -> bytes:
    """The key that signed a record: word 3 of its entry."""
    return entry[96:128]
