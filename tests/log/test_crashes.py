"""Processes that really die between, and inside, the three writes; and processes that append at the same moment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from appender import KEY, ORIGIN, PUBLIC_KEY, entry
from simulator import POINTS
from sqlalchemy import select

from ledger.core import merkle
from ledger.core.checkpoint import Checkpoint
from ledger.log import Log, check
from ledger.store import LogStore, Store, open_store
from ledger.store.schema import log_head, log_staged

APPENDER = Path(__file__).with_name("appender.py")
BEFORE = 300
"""Entries already there: one full tile, one partial, two levels."""
BATCH = 400


def append(database: Path, first: int, size: int, *fault: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, str(APPENDER), str(database), str(first), str(size), *fault]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def open_log(store: Store) -> Log:
    return Log(LogStore(store), ORIGIN, PUBLIC_KEY, KEY.sign)


def numbers(log: Log) -> list[int]:
    return [int.from_bytes(body[:4], "big") for body in log.entries(0, log.head().size)]


def leftovers(store: Store) -> tuple[int, bool]:
    """How many batches are staged, and whether one is sequenced and not published."""
    with store.reading() as connection:
        staged = len(connection.execute(select(log_staged.c.id)).all())
        return staged, connection.execute(select(log_head.c.staged)).scalar_one() is not None


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    store = open_store(path)
    open_log(store).append([entry(number) for number in range(BEFORE)])
    store.close()
    return path


def assert_whole(store: Store, log: Log, before: Checkpoint) -> None:
    """The published tree is the one of its entries, and extends the one before."""
    head = check(LogStore(store), ORIGIN, PUBLIC_KEY)
    assert head == log.head()
    proof = log.consistency_proof(before.size, head.size)
    merkle.verify_consistency(before.size, before.root, head.size, head.root, proof)


@pytest.mark.parametrize("point", POINTS)
def test_after_a_crash_at_each_point_one_repair_leaves_all_or_nothing(database: Path, point: str) -> None:
    store = open_store(database)
    before = open_log(store).head()
    # The first "publish" of an append finds nothing to do: the crash there is the one before anything happened.
    died = append(database, BEFORE, BATCH, "die", point)
    assert died.wait() == -9
    sequenced = point == "swapped"
    assert (
        leftovers(store)
        == {
            "before stage": (0, False),
            "staged": (1, False),
            "before swap": (1, False),
            "swapped": (1, True),
            "before publish": (0, False),
            "published": (0, False),
        }[point]
    )
    log = open_log(store)
    assert not leftovers(store)[1]
    assert log.head().size == BEFORE + (BATCH if sequenced else 0)
    assert_whole(store, log, before)
    # Trying again after the repair appends the batch once, or shows that it is there.
    if not sequenced:
        assert log.append([entry(number) for number in range(BEFORE, BEFORE + BATCH)]) == range(BEFORE, BEFORE + BATCH)
    assert numbers(log) == list(range(BEFORE + BATCH))
    assert leftovers(store) == (0, False)
    assert_whole(store, log, before)
    store.close()


def test_a_crash_at_any_statement_of_any_write_is_repaired(database: Path) -> None:
    store = open_store(database)
    log = open_log(store)
    crashes = 0
    expected = list(range(BEFORE))
    while True:
        before = log.head()
        first = len(expected)
        died = append(database, first, 10, "die-at-statement", str(crashes))
        code = died.wait()
        log = open_log(store)
        found = numbers(log)
        assert found in (expected, [*expected, *range(first, first + 10)])
        assert_whole(store, log, before)
        expected = found
        if code == 0:
            break
        assert code == -9
        crashes += 1
    # begin and commit of nine transactions and their statements: fewer means that the switch did nothing
    assert crashes > 20
    assert leftovers(store) == (0, False)
    store.close()


def test_a_reader_sees_the_old_tree_until_the_new_one_is_whole(database: Path) -> None:
    assert append(database, BEFORE, BATCH, "die", "swapped").wait() == -9
    store = open_store(database, read_only=True)
    reader = Log(LogStore(store), ORIGIN, PUBLIC_KEY)
    assert reader.head().size == BEFORE
    assert check(LogStore(store), ORIGIN, PUBLIC_KEY).size == BEFORE
    store.close()


def test_a_log_that_is_open_finishes_what_a_dead_process_sequenced(database: Path) -> None:
    store = open_store(database)
    log = open_log(store)
    assert append(database, BEFORE, BATCH, "die", "swapped").wait() == -9
    assert log.append([entry(BEFORE + BATCH)]) == range(BEFORE + BATCH, BEFORE + BATCH + 1)
    assert numbers(log) == list(range(BEFORE + BATCH + 1))
    store.close()


def test_of_two_processes_that_append_at_once_one_is_told_to_try_later(database: Path, tmp_path: Path) -> None:
    folder = tmp_path / "meeting"
    folder.mkdir()
    racers = [append(database, first, BATCH, "meet", str(folder), "2") for first in (1000, 2000)]
    output = [racer.communicate()[0] for racer in racers]
    assert sorted(racer.returncode for racer in racers) == [0, 6]
    winner, loser = (0, 1) if racers[0].returncode == 0 else (1, 0)
    assert output[winner] == f"range({BEFORE}, {BEFORE + BATCH})\n"
    assert output[loser] == f"another process appended to {ORIGIN} at the same moment: append again\n"
    store = open_store(database)
    log = open_log(store)
    first = (1000, 2000)[winner]
    assert numbers(log) == [*range(BEFORE), *range(first, first + BATCH)]
    assert leftovers(store) == (0, False)
    check(LogStore(store), ORIGIN, PUBLIC_KEY)
    store.close()


def test_processes_that_try_again_all_get_in_once(database: Path) -> None:
    writers = [append(database, 10_000 * number, 20, "retry") for number in range(1, 6)]
    assert [writer.wait() for writer in writers] == [0] * 5
    store = open_store(database)
    log = open_log(store)
    found = numbers(log)
    assert sorted(found[BEFORE:]) == [10_000 * number + at for number in range(1, 6) for at in range(20)]
    check(LogStore(store), ORIGIN, PUBLIC_KEY)
    store.close()
