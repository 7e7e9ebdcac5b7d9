"""One run of a site's anchoring: one process at a time, waiting as far as the caller asks."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ledger.core import stateproof
from ledger.core.errors import NeedPermission, TryLater
from ledger.core.trust import Block
from ledger.log import Log
from ledger.log.anchoring import ORDER, Anchoring, AnchorRow
from ledger.log.sequencing import Queue, Sequencing
from ledger.store.anchors import AnchorStore
from ledger.wiring import site as sites
from ledger.wiring.site import Site

POLL_S = 0.25
RECENT = 500
"""Proven anchors whose blocks are put into the trust file again, should a crash have come between."""


@dataclass(frozen=True)
class Carried:
    """What one run did: the log's size, the chain's, and the anchors that were not final before it."""

    size: int
    anchored: int
    new_rows: tuple[AnchorRow, ...]
    reached: bool

    def as_json(self) -> dict[str, Any]:
        rows = [
            {
                "size": row.new_size,
                "records": row.new_size - row.old_size,
                "state": row.state,
                "block": row.block_number,
                "gas_used": row.gas_used,
            }
            for row in self.new_rows
        ]
        return {"log_size": self.size, "anchored_size": self.anchored, "reached": self.reached, "anchors": rows}


class SiteAnchoring:
    """One site's anchoring, with its trust file kept up to date."""

    def __init__(
        self,
        site: Site,
        anchoring: Anchoring,
        log: Log,
        queue: Queue,
        anchors: AnchorStore,
        let_time_pass: Callable[[], None],
    ) -> None:
        self._site, self._anchoring, self._log = site, anchoring, log
        self._queue, self._anchors = queue, anchors
        self._let_time_pass = let_time_pass

    def queued(self) -> int:
        return self._queue.depth()

    def sequence(self, progress: Callable[[int], None]) -> int:
        return Sequencing(self._log, self._queue).sequence(progress)

    def carry(self, *, wait: Literal["final", "included", "none"], timeout_s: float, publish_leaves: bool) -> Carried:
        """Anchors the log's head, again where a re-org took it away, until it is as far as `wait` says or the time is up."""
        before = self._anchors.unsettled()
        above = min((row.new_size for row in before), default=self._anchors.final_size() + 1) - 1
        known = {row.new_size for row in self._anchors.rows(above)} - {row.new_size for row in before}
        deadline = time.monotonic() + timeout_s
        while True:
            view = self._anchoring.look()
            self._anchoring.settle(view)
            if self._anchoring.submit(view, int(time.time()), publish_leaves=publish_leaves):
                self._anchoring.settle(self._anchoring.look())
            rows = self._anchors.rows(above)
            reached = self._is_reached(rows, wait)
            if reached or wait == "none" or time.monotonic() > deadline:
                break
            self._let_time_pass()
            time.sleep(POLL_S)
        self._anchoring.settle_payments()
        trust_blocks(self._site, self._anchors.proven(RECENT))
        size = self._log.head().size
        new = tuple(row for row in rows if row.new_size not in known)
        return Carried(size, self._anchors.included_size(), new, reached or wait == "none")

    def _is_reached(self, rows: list[AnchorRow], wait: str) -> bool:
        """Whether the log's head is as far as it shall be, and with it what is below. An anchor in whose place another stands
        does not count."""
        size = self._log.head().size
        wanted = ORDER.index("final" if wait == "final" else "included")
        far = [row for row in rows if ORDER.index(row.state) >= wanted]
        covered = max((row.new_size for row in far), default=self._anchors.final_size())
        return covered >= size and all(row in far or row.state == "sequenced" for row in rows)


def trust_blocks(site: Site, rows: Sequence[AnchorRow]) -> None:
    """The blocks of our own proofs go into the site's trust file: they are final, and this site saw them itself."""
    _trust_headers(site, [stateproof.parse_header(row.proof.header) for row in rows if row.proof is not None])


def trust_block(site: Site, header: stateproof.Header) -> None:
    """A final block that this site saw on the chain itself goes into its trust file."""
    _trust_headers(site, [header])


def _trust_headers(site: Site, headers: Sequence[stateproof.Header]) -> None:
    if not headers:
        return
    trust = site.trust()
    known = {block.hash for block in trust.blocks}
    new = {header.number: header.hash for header in headers if header.hash not in known}
    if new:
        blocks = (*trust.blocks, *(Block(number=number, hash=new[number]) for number in sorted(new)))
        sites.write_trust(site.trust_path, trust.model_copy(update={"blocks": blocks}))


@contextmanager
def only_one(path: Path, command: str = "`scanseal anchor`") -> Iterator[None]:
    """Holds a lock file. Raises TryLater where another process has it."""
    try:
        handle = path.open("w")
    except OSError as error:
        raise NeedPermission(f"{path.parent}: cannot be written ({error.strerror})") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TryLater(f"another {command} runs on this site: wait for it") from error
        yield
