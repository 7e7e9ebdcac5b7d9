"""Two that sequence one queue at any moment of each other put each entry into the log once."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from appender import KEY, ORIGIN, PUBLIC_KEY, entry
from simulator import POINTS, Switched

from ledger.core.errors import Stop, TryLater
from ledger.log import Log, check
from ledger.log.sequencing import Sequencing
from ledger.store import LogStore, Store, open_store


class Waiting:
    """A queue in memory: what is noted survives, as in a database."""

    def __init__(self, count: int) -> None:
        self.noted: dict[bytes, int | None] = {entry(number): None for number in range(count)}

    def queued_entries(self, limit: int) -> Sequence[bytes]:
        return [one for one, index in self.noted.items() if index is None][:limit]

    def next_index(self) -> int:
        return max((index + 1 for index in self.noted.values() if index is not None), default=0)

    def note_indices(self, indices: Mapping[bytes, int]) -> None:
        self.noted |= {one: index for one, index in indices.items() if one in self.noted}

    def depth(self) -> int:
        return len(self.queued_entries(len(self.noted)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "store.db")
    yield opened
    opened.close()


def open_log(store: Store, at=lambda point: None) -> Log:  # type: ignore[no-untyped-def]
    return Log(Switched(LogStore(store), lambda point: at(point)), ORIGIN, PUBLIC_KEY, KEY.sign)


def assert_each_once(store: Store, queue: Waiting) -> None:
    log = open_log(store)
    assert list(log.entries(0, log.head().size)) == sorted(queue.noted, key=lambda one: queue.noted[one] or 0)
    assert sorted(index for index in queue.noted.values() if index is not None) == list(range(len(queue.noted)))
    check(LogStore(store), ORIGIN, PUBLIC_KEY)


@pytest.mark.parametrize("point", POINTS)
def test_a_second_that_sequences_in_the_middle_of_the_first_doubles_nothing(store: Store, point: str) -> None:
    queue, armed = Waiting(5), [True]

    def at(reached: str) -> None:
        if reached == point and armed[0]:
            armed[0] = False
            Sequencing(open_log(store), queue).sequence(lambda _: None)

    log = open_log(store)
    first = Sequencing(log, queue)
    log._storage._at = at  # type: ignore[attr-defined]
    try:
        first.sequence(lambda _: None)
    except TryLater:
        first.sequence(lambda _: None)
    assert not armed[0]
    assert_each_once(store, queue)


def test_a_second_that_sequences_after_the_first_has_read_the_queue_doubles_nothing(store: Store) -> None:
    class Interrupted(Waiting):
        armed = True

        def queued_entries(self, limit: int) -> Sequence[bytes]:
            found = super().queued_entries(limit)
            if self.armed:
                self.armed = False
                Sequencing(open_log(store), self).sequence(lambda _: None)
            return found

    queue = Interrupted(5)
    with pytest.raises(TryLater):
        Sequencing(open_log(store), queue).sequence(lambda _: None)
    assert Sequencing(open_log(store), queue).sequence(lambda _: None) == 0
    assert_each_once(store, queue)


@pytest.mark.parametrize("point", POINTS)
def test_what_a_crash_left_unnoted_is_noted_and_not_appended_again(store: Store, point: str) -> None:
    queue, armed = Waiting(5), [True]

    def at(reached: str) -> None:
        if reached == point and armed[0]:
            armed[0] = False
            raise KeyboardInterrupt

    log = open_log(store)
    log._storage._at = at  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        Sequencing(log, queue).sequence(lambda _: None)
    assert Sequencing(open_log(store), queue).sequence(lambda _: None) == 5
    assert_each_once(store, queue)


def test_many_threads_get_everything_in_once(store: Store) -> None:
    queue = Waiting(60)

    def work() -> None:
        sequencing = Sequencing(open_log(store), queue)
        while True:
            try:
                if not sequencing.sequence_batch() and not queue.depth():
                    return
            except TryLater:
                continue

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert_each_once(store, queue)


def test_a_log_that_is_shorter_than_the_journal_knows_stops_it(store: Store) -> None:
    queue = Waiting(2)
    queue.noted[entry(0)] = 7
    with pytest.raises(Stop, match="knows 8 sequenced records, the log has 0"):
        Sequencing(open_log(store), queue).sequence(lambda _: None)


def test_appending_at_another_size_is_refused(store: Store) -> None:
    log = open_log(store)
    log.append([entry(0)], at=0)
    with pytest.raises(TryLater, match="it has 1 entries now"):
        log.append([entry(1)], at=0)
    assert log.root(1) == log.head().root
