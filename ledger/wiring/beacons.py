"""A recent block for signing under, fetched on a thread of its own, so that no signature waits for the chain."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ledger.chain import Ledger
from ledger.core.contracts import Beacon
from ledger.core.errors import LedgerUnavailable, NeedPermission, ScanSealError, TryLater
from ledger.core.records import Role
from ledger.core.stateproof import Header
from ledger.core.trust import Trust
from ledger.log import Log
from ledger.store.anchors import AnchorStore
from ledger.store.journal import JournalStore
from ledger.wiring import chain

EVERY_S = 15.0
FIRST_ANSWER_S = 10.0
"""How long the first seal of a process waits for the chain's first answer, which may say that the journal is an old copy."""


@dataclass(frozen=True)
class KeyStanding:
    """What the chain says of a key: its roles (None where it is not enrolled yet), or the word for why it may not sign."""

    roles: Role | None
    barred: str | None = None


class Beacons:
    """Keeps the newest block known, and the standing of some keys. `log`: the site's own, None where others keep it; `newest`:
    who shows a recent block (header, RLP) to a site that asks no chain itself."""

    def __init__(
        self,
        trust: Trust,
        rpc: tuple[str, ...],
        anchors: AnchorStore,
        keys: dict[bytes, str],
        journal: JournalStore,
        log: Log | None,
        newest: Callable[[], tuple[Header, bytes]] | None = None,
    ) -> None:
        self._trust, self._rpc, self._anchors, self._keys = trust, rpc, anchors, keys
        self._journal, self._log, self._newest = journal, log, newest
        self._old_copy: str | None = None
        self._asked = threading.Event()
        self._standing: dict[bytes, KeyStanding] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beacons", daemon=True)
        self.last_error: str | None = None
        self.clock_behind_s: float | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def current(self) -> tuple[Beacon, int]:
        """The newest block that was ever seen, with its time. Raises TryLater before the first."""
        known = self._anchors.newest_header()
        if known is None:
            raise TryLater(f"no block of the chain was seen yet, so nothing can be sealed: {self.last_error or 'asking'}")
        return known

    def require(self, key: bytes, needed: Role) -> None:
        """Raises NeedPermission where the chain lets this key not sign such records, or where its journal is an old copy, from
        which it would sign a counter twice. What the chain does not say is no objection; the first answer is waited for."""
        if self._thread.is_alive():
            self._asked.wait(FIRST_ANSWER_S)
        if why := self._journal.barred().get(key):
            raise NeedPermission(f"the key of {self._keys[key]} signs nothing more from here: {why}")
        if self._old_copy is not None:
            raise NeedPermission(self._old_copy)
        standing = self._standing.get(key)
        if standing is None:
            return
        if standing.barred:
            raise NeedPermission(
                f"the key of {self._keys[key]} is {standing.barred} on chain, its seals would be REVOKED: seal with a newer key"
            )
        if standing.roles is not None and not needed & standing.roles:
            raise NeedPermission(f"the key of {self._keys[key]} may not {needed.words}: its roles are {standing.roles.words}")

    def look(self) -> None:
        """Asks the chain once. Raises LedgerUnavailable, LedgerDisagrees."""
        if self._newest is not None:
            header, rlp = self._newest()
            self._keep(header, rlp)
            return
        ledger = chain.connect(self._rpc, self._trust)
        block = ledger.beacon()
        header = block.header
        for key in self._keys:
            state = ledger.key_state(key)
            word = "revoked" if state.compromised_since else "retired" if state.retired_at else None
            self._standing[key] = KeyStanding(state.roles if any(state.certificate) else None, word)
        self._compare(ledger)
        self._keep(header, block.rlp)

    def _keep(self, header: Header, rlp: bytes) -> None:
        self._anchors.keep_header(header.number, header.hash, rlp)
        self.clock_behind_s = header.timestamp - time.time()

    def _compare(self, ledger: Ledger) -> None:
        if self._log is None:
            return
        anchored = ledger.anchored_size(self._trust.logs[0].log_id)  # before the log's, which only grows
        size = self._log.head().size
        self._old_copy = None
        if anchored > size:
            self._old_copy = (
                f"the chain has an anchor for {anchored} records, this log has {size}: it is an old copy, nothing is sealed "
                "from it; `scanseal restore` makes a site of a backup"
            )

    def state(self) -> dict[str, Any]:
        """For the agent's status."""
        behind = None if self.clock_behind_s is None else round(self.clock_behind_s)
        barred = {self._keys[key]: f"{one.barred} on chain" for key, one in self._standing.items() if one.barred}
        with suppress(TryLater):
            barred |= {self._keys[key]: why for key, why in self._journal.barred().items() if key in self._keys}
        return {"error": self.last_error, "clock_behind_s": behind, "barred": barred}

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
                self.last_error = None
            except (LedgerUnavailable, ScanSealError) as error:
                self.last_error = str(error)
            self._asked.set()
            self._stop.wait(EVERY_S if self.last_error is None else 2.0)
