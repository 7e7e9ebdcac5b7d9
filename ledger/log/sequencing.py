"""From a queue of signed records into the log: each once, whoever else sequences at the same moment, whatever crashes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from ledger.core.errors import Stop
from ledger.log.log import Log

BATCH: Final = 8192
"""Entries sequenced with one append."""


class Queue(Protocol):
    """Where signed records wait for their place in the log. One for a log: it knows of everything that is ever appended."""

    def queued_entries(self, limit: int) -> Sequence[bytes]:
        """The oldest log entries that have no index yet, in the order of sealing; none twice."""

    def next_index(self) -> int:
        """One more than the highest log index noted."""

    def note_indices(self, indices: Mapping[bytes, int]) -> None:
        """entry -> log index. All or nothing, durable when it returns; may be repeated."""

    def depth(self) -> int:
        """How many entries have no index yet."""


class Sequencing:
    """Moves what is queued into a log. Any number of processes may do so at once: of two one is told to try later."""

    def __init__(self, log: Log, queue: Queue) -> None:
        self._log, self._queue = log, queue
        self._looked_to = 0
        """The size up to which everything in the log was noted, as far as the queue knows of it: a log that was made whole
        after its store was lost has entries that no queue knows."""

    def sequence(self, progress: Callable[[int], None]) -> int:
        """Moves everything queued into the log. Returns how many entries. Raises as `sequence_batch`."""
        moved = 0
        while more := self.sequence_batch():
            moved += more
            progress(moved)
        return moved

    def sequence_batch(self) -> int:
        """Moves up to `BATCH` queued entries into the log. Returns how many; 0 when nothing waits.

        1. note what a crashed or another process put into the log, up to its size;
        2. read what is queued now: nothing of it is in the log up to that size;
        3. append it, if the log still has that size;
        4. note its indices.

        Raises TryLater when another process appended in between: nothing is lost, call again. Raises Stop when the log is
        shorter than the journal knows: then its store is an old copy.
        """
        # 1
        size, recovered = self._recover()
        # 2
        entries = self._queue.queued_entries(BATCH)
        if not entries:
            return recovered
        # 3
        indices = self._log.append(entries, at=size)
        # 4
        self._queue.note_indices(dict(zip(entries, indices, strict=True)))
        return recovered + len(entries)

    def _recover(self) -> tuple[int, int]:
        """(the log's size up to which everything is noted, how many entries were noted just now)."""
        known = self._queue.next_index()  # read before the size, which another process may raise meanwhile
        size = self._log.head().size
        if known > size:
            raise Stop(f"the journal knows {known} sequenced records, the log has {size}: the log's store is an old copy")
        start = max(known, min(self._looked_to, size))
        found = {entry: start + offset for offset, entry in enumerate(self._log.entries(start, size))}
        if found:
            self._queue.note_indices(found)
        self._looked_to = size
        return size, len(found)
