"""Running the anchoring of a site: one process at a time, waiting as far as the caller asks."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ledger.core import stateproof
from ledger.core.errors import NeedPermission, TryLater
from ledger.core.trust import Block
from ledger.log import Log
from ledger.log.anchoring import ORDER, Anchoring, AnchorRow
from ledger.store.anchors import AnchorStore
from ledger.store.journal import JournalStore
from ledger.wiring import site as sites
from ledger.wiring.site import Site

POLL_S = 0.25


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
        carrier: Anchoring,
        log: Log,
        journal: JournalStore,
        anchors: AnchorStore,
        let_time_pass: Callable[[], None],
    ) -> None:
        self._site, self._carrier, self._log = site, carrier, log
        self._journal, self._anchors = journal, anchors
        self._let_time_pass = let_time_pass

    def queued(self) -> int:
        return self._journal.counts()[1]

    def sequence(self, progress: Callable[[int], None]) -> int:
        return self._carrier.sequence(progress)

    def carry(self, *, wait: Literal["final", "included", "none"], timeout_s: float, publish_leaves: bool) -> Carried:
        """Anchors the log's head, again where a re-org took it away, until it is as far as `wait` says or the time is up."""
        settled_before = {row.new_size for row in self._anchors.rows() if row.proof is not None}
        deadline = time.monotonic() + timeout_s
        while True:
            self._carrier.submit(publish_leaves=publish_leaves)
            self._carrier.settle()
            rows = self._anchors.rows()
            reached = self._is_reached(rows, wait)
            if reached or wait == "none" or time.monotonic() > deadline:
                break
            self._let_time_pass()
            time.sleep(POLL_S)
        self._trust_blocks(rows)
        size = self._log.head().size
        anchored = max((row.new_size for row in rows if row.state != "sequenced"), default=0)
        new = tuple(row for row in rows if row.new_size not in settled_before)
        return Carried(size, anchored, new, reached or wait == "none")

    def _is_reached(self, rows: list[AnchorRow], wait: str) -> bool:
        size = self._log.head().size
        if size == 0:
            return True
        wanted = ORDER.index("final" if wait == "final" else "included")
        return bool(rows) and rows[-1].new_size == size and all(ORDER.index(row.state) >= wanted for row in rows)

    def _trust_blocks(self, rows: list[AnchorRow]) -> None:
        """The blocks of our own proofs go into the site's trust file: they are final, and this site saw them itself."""
        trust = self._site.trust()
        known = {block.hash for block in trust.blocks}
        proven = [header for row in rows if row.proof is not None for header in (stateproof.parse_header(row.proof.header),)]
        new = {header.number: header.hash for header in proven if header.hash not in known}
        if new:
            blocks = (*trust.blocks, *(Block(number=number, hash=new[number]) for number in sorted(new)))
            sites.write_trust(self._site.trust_path, trust.model_copy(update={"blocks": blocks}))


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Holds a lock file. Raises TryLater where another process has it."""
    try:
        handle = path.open("w")
    except OSError as error:
        raise NeedPermission(f"{path.parent}: cannot be written ({error.strerror})") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TryLater("another `scanseal anchor` runs on this site: wait for it") from error
        yield
