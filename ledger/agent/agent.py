"""The agent: its parts, started and stopped in an order that loses nothing, and what it says of itself."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from ledger.agent.spool import Spool
from ledger.core.errors import ScanSealError

LOG = logging.getLogger(__name__)

CLEAN_EVERY_S = 10.0


class Part(Protocol):
    """Something with a thread of its own."""

    def start(self) -> object: ...

    def stop(self) -> None:
        """Ends at a safe point, within seconds."""


class Refusals:
    """What was refused or failed, by part and word, for metrics; and the newest word of each part."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._said: dict[str, str] = {}

    def count(self, part: str, word: str) -> None:
        with self._lock:
            self._counts[part, word] += 1

    def say(self, part: str, message: str) -> None:
        """Logs a part's trouble, once until it changes; without a message it is over."""
        if not message:
            self.clear(part)
            return
        with self._lock:
            self._counts[part, "trouble"] += 1
            if self._said.get(part) == message:
                return
            self._said[part] = message
        LOG.warning("trouble", extra={"part": part, "reason": message})

    def clear(self, part: str) -> None:
        """A part's trouble is over."""
        with self._lock:
            said = self._said.pop(part, None)
        if said is not None:
            LOG.info("trouble is over", extra={"part": part})

    def troubles(self) -> dict[str, str]:
        with self._lock:
            return dict(self._said)

    def counts(self) -> dict[tuple[str, str], int]:
        with self._lock:
            return dict(self._counts)


class Agent:
    """Runs until it is told to stop. `workers` work off the spool; `sources` fill it, and are started last, stopped first."""

    def __init__(
        self,
        spool: Spool,
        workers: Sequence[Part],
        sources: Sequence[Part],
        forwards: Callable[[str], bool | None],
    ) -> None:
        self._spool, self._workers, self._sources, self._forwards = spool, workers, sources, forwards
        self.stopping = threading.Event()
        self.lost = 0
        self.started: float | None = None
        """When all parts ran, seconds since 1970."""

    def run(self) -> None:
        """Until `stopping` is set. Raises FixInput, NeedPermission where a source cannot start: then nothing runs."""
        noted, lost = self._spool.recover(self._forwards)
        self.lost = len(lost)
        if noted or lost:
            LOG.warning("the spool was repaired", extra={"noted": noted, "lost": len(lost)})
        started: list[Part] = []
        try:
            for part in (*self._workers, *self._sources):
                part.start()
                started.append(part)
            self.started = time.time()
            LOG.info("running", extra={"sources": len(self._sources)})
            while not self.stopping.wait(CLEAN_EVERY_S):
                with suppress(ScanSealError, OSError):
                    self._spool.clean()
        finally:
            for part in reversed(started):
                part.stop()
            LOG.info("stopped")

    def parts(self) -> Iterator[Part]:
        yield from (*self._workers, *self._sources)
