"""What the web needs of a log node: the Protocol that the wiring fills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ledger.core.merkle import Tile
from ledger.log.anchoring import AnchorRow

State = Literal["queued", "sequenced", "included", "safe", "final"]


@dataclass(frozen=True)
class Standing:
    """How far a record is; `index` is its place in the log, None while it is queued."""

    record_id: bytes
    state: State
    index: int | None


@dataclass(frozen=True)
class Health:
    """A moment of the node. It is well where it takes records and puts them into the log; a chain that is out of reach is
    trouble, and no illness."""

    store_writable: bool
    log_publishing: bool
    queued: int
    oldest_queued_s: float | None
    log_size: int
    anchored_size: int
    last_anchor_age_s: float | None
    held_keys: int
    troubles: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def is_well(self) -> bool:
        return self.store_writable and self.log_publishing and not self.alarms


class Node(Protocol):
    """A log node. Every method may raise TryLater; what was answered before is durable."""

    def client(self, token: str) -> str | None:
        """The name of the site that has this token."""

    def submit(self, client: str, entries: Sequence[bytes], certificates: Sequence[bytes]) -> Sequence[Standing]:
        """Takes all of these log entries, or none; durable when it returns. Known ones are answered as they stand.

        Raises EvidenceInvalid (malformed, a bad signature, a certificate of nobody that is trusted), OutOfOrder, KeyForked,
        Busy (the queue is full).
        """

    def record(self, record_id: bytes) -> Standing | None: ...

    def checkpoint(self) -> str:
        """The newest signed checkpoint."""

    def tile(self, tile: Tile) -> bytes | None:
        """A tile as wide as asked for; None where the log has none so wide."""

    def entries(self, index: int, width: int) -> bytes | None:
        """An entry bundle as wide as asked for; None where the log has none so wide."""

    def anchors(self, after: int, limit: int) -> Sequence[AnchorRow]:
        """Final anchors with their proofs, of sizes above `after`, by size."""

    def header(self, block_hash: bytes | None) -> bytes | None:
        """A block header (RLP) that a record may name as its beacon; with None that of a recent block."""

    def deposit(self, client: str, token: bytes, body: bytes) -> bool:
        """Keeps encrypted evidence under a token, in place of the same site's older one; whether there was none."""

    def withdraw(self, client: str, token: bytes) -> bool:
        """Forgets a site's deposit; whether there was one."""

    def deposited(self, token: bytes) -> Sequence[bytes]: ...

    def health(self) -> Health: ...
