"""Sealing what the spool holds, in batches, in the order of arrival; it waits neither for the PACS nor for the chain."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

from ledger.agent.spool import Spool, backoff, now, reason
from ledger.core.errors import NeedPermission, Stop, TryLater
from ledger.store.spool import Sealing, Spooled

LOG = logging.getLogger(__name__)

BATCH: Final = 64
IDLE_S: Final = 2.0
GATHER_S: Final = 0.3
"""How long images are gathered after the first, so that one write of the journal is for many."""


class Seals(Protocol):
    """One key's seals. Each is on disk when `seal` returns, and an image that was sealed before gives its record again."""

    def seal(self, files: Sequence[tuple[Spooled, Path]]) -> list[Sealing]:
        """What became of each file, none left out: `sealed` (acquired here), `received` (of other origin), `none` (no image),
        `refused` (unreadable: it is forwarded all the same). Raises TryLater, NeedPermission: then none was sealed."""


class SealingWorker:
    """Seals the files of some sources, on a thread of its own."""

    def __init__(self, sources: Iterable[str], seals: Seals, spool: Spool, say: Callable[[str, str], None]) -> None:
        self._sources, self._seals, self._spool, self._say = frozenset(sources), seals, spool, say
        self._name = f"seal {', '.join(sorted(self._sources))}"
        self._stop, self.wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="seal", daemon=True)
        self._is_new = True
        self.last_error: str | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends after the batch that is being sealed."""
        self._stop.set()
        self.wake.set()
        self._thread.join(60.0)

    def _run(self) -> None:
        gathered = False
        while not self._stop.is_set():
            self.wake.clear()
            try:
                files = self._spool.book.to_seal(self._sources, now(), BATCH)
                if files and self._is_new:
                    self._seal_one_by_one(files)
                    self._is_new = False
                    continue
                if files:
                    if len(files) < BATCH and not gathered:
                        gathered = not self._stop.wait(GATHER_S)
                        continue
                    gathered = False
                    self._seal(files)
                    continue
            except Exception as error:  # noqa: BLE001 - whatever happens to one batch, others come
                self.last_error = reason(error)
                self._say(self._name, self.last_error)
                self._stop.wait(1.0)
                continue
            self.wake.wait(IDLE_S)

    def _seal_one_by_one(self, files: Sequence[Spooled]) -> None:
        """The first files after a start. One at which this process ended before has been postponed, and ever longer: it does
        not keep the others from being sealed."""
        for file in files:
            if self._stop.is_set():
                return
            self._postpone([file])
            self._seal([file])

    def _postpone(self, files: Sequence[Spooled]) -> None:
        self._spool.book.postpone_seal({file.number: backoff(file.seal_attempts, 60.0) for file in files})

    def _seal(self, files: Sequence[Spooled]) -> None:
        try:
            outcomes = self._seals.seal([(file, self._spool.path(file)) for file in files])
        except (TryLater, NeedPermission) as error:
            self._postpone(files)
            self.last_error = str(error)
            self._say(self._name, str(error))
            return
        except Exception as error:
            if len(files) == 1:
                self._postpone(files)
                raise
            LOG.warning("a batch is sealed one by one", extra={"part": self._name, "reason": reason(error)})
            self._seal_one_by_one(files)
            return
        if {one.number for one in outcomes} != {file.number for file in files}:
            raise Stop("a file of the spool was left out when it was sealed")
        self._spool.step("sealed")
        self._spool.book.note_sealed(outcomes)
        self._spool.step("noted as sealed")
        self.last_error = None
