"""The log's storage on both databases: the three writes, and what readers see before, between and after them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select

from ledger.core import merkle
from ledger.core.errors import EvidenceInvalid, Stop
from ledger.core.merkle import Tile
from ledger.log import Batch, Log, check
from ledger.store import LogStore, Store, open_store
from ledger.store.schema import log_head, log_staged

ORIGIN = "example.org/log"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = KEY.public_key().public_bytes_raw()
BODIES = [number.to_bytes(2, "big") * 20 for number in range(600)]
LEAVES = [merkle.leaf_hash(body) for body in BODIES]


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    opened = open_store(database)
    yield opened
    opened.close()


def batch(storage: LogStore, old: int, new: int) -> Batch:
    tiles = merkle.appended_tiles(old, LEAVES[old:new], storage.tiles)
    return Batch(old, new, BODIES[old:new], tiles, f"checkpoint {new}")


def append(storage: LogStore, old: int, new: int) -> None:
    assert storage.swap_head(old, storage.stage(batch(storage, old, new)))
    storage.publish()


def test_nothing_is_shown_before_it_is_published(store: Store) -> None:
    storage = LogStore(store)
    assert storage.checkpoint() is None
    staged = storage.stage(batch(storage, 0, 300))
    assert storage.checkpoint() is None
    assert storage.swap_head(0, staged) is True
    assert storage.checkpoint() is None
    with pytest.raises(EvidenceInvalid, match=r"tile/0/000 is missing"):
        storage.tiles([Tile(0, 0, 256)])
    storage.publish()
    assert storage.checkpoint() == "checkpoint 300"
    assert list(storage.entries(0, 300)) == BODIES[:300]
    assert merkle.root_from_tiles(300, storage.tiles) == merkle.root_of(LEAVES[:300])


def test_publishing_again_changes_nothing(store: Store) -> None:
    storage = LogStore(store)
    storage.publish()
    append(storage, 0, 300)
    storage.publish()
    assert storage.checkpoint() == "checkpoint 300"
    assert list(storage.entries(0, 300)) == BODIES[:300]


def test_tiles_widen_and_old_widths_stay_readable(store: Store) -> None:
    storage = LogStore(store)
    sizes = [0, 1, 2, 255, 256, 257, 511, 600]
    for old, new in pairwise(sizes):
        append(storage, old, new)
        for size in sizes[: sizes.index(new) + 1]:
            assert merkle.root_from_tiles(size, storage.tiles) == merkle.root_of(LEAVES[:size])
    tiles = [Tile(1, 0, 2), Tile(0, 1, 256), Tile(0, 0, 3)]
    assert [len(content) for content in storage.tiles(tiles)] == [64, 8192, 96]
    assert storage.tiles([]) == []
    with pytest.raises(EvidenceInvalid, match=r"tile/0/002\.p/89 is missing"):
        storage.tiles([Tile(0, 2, 89)])


def test_the_head_moves_once_from_each_size(store: Store) -> None:
    storage = LogStore(store)
    first, second = storage.stage(batch(storage, 0, 5)), storage.stage(batch(storage, 0, 9))
    assert first != second
    assert storage.swap_head(0, second) is True
    # Not while a batch is sequenced and unpublished, not from an old size, not twice, not a batch that is not there.
    assert storage.swap_head(0, first) is False
    assert storage.swap_head(9, first) is False
    assert storage.swap_head(0, second) is False
    early = storage.stage(Batch(9, 10, BODIES[9:10], [(Tile(0, 0, 10), b"".join(LEAVES[:10]))], "checkpoint 10"))
    assert storage.swap_head(9, early) is False
    storage.publish()
    assert storage.swap_head(0, first) is False
    assert storage.swap_head(9, 999) is False
    assert storage.checkpoint() == "checkpoint 9"
    assert storage.swap_head(9, early) is True


def test_publishing_forgets_what_came_too_late_and_keeps_what_may_still_come(store: Store) -> None:
    storage = LogStore(store)
    append(storage, 0, 5)
    storage.stage(Batch(0, 2, BODIES[:2], [(Tile(0, 0, 2), b"".join(LEAVES[:2]))], "late"))
    staged = storage.stage(batch(storage, 5, 7))
    append(storage, 5, 6)
    with store.reading() as connection:
        assert connection.execute(select(log_staged.c.id)).all() == []
        assert connection.execute(select(log_head.c.staged)).scalar_one() is None
    assert storage.swap_head(6, staged) is False


def test_of_many_threads_one_moves_the_head(store: Store, database: str) -> None:
    storage = LogStore(store)
    staged = [storage.stage(batch(storage, 0, size)) for size in range(1, 9)]
    others = [LogStore(open_store(database)) for _ in staged]
    start = threading.Barrier(len(staged))
    won: list[int] = []

    def race(at: int) -> None:
        start.wait()
        if others[at].swap_head(0, staged[at]):
            won.append(at)

    threads = [threading.Thread(target=race, args=(at,)) for at in range(len(staged))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    storage.publish()
    assert storage.checkpoint() == f"checkpoint {won[0] + 1}"


def test_a_missing_entry_is_named(store: Store) -> None:
    storage = LogStore(store)
    append(storage, 0, 3)
    with pytest.raises(EvidenceInvalid, match="entry 3 is missing"):
        list(storage.entries(0, 5))


def test_entries_that_are_there_already_are_never_overwritten(store: Store) -> None:
    storage = LogStore(store)
    append(storage, 0, 3)
    with store.writing() as connection:
        connection.execute(log_head.update().values(size=0))
    assert storage.swap_head(0, storage.stage(batch(storage, 0, 5)))
    with pytest.raises(Stop, match="contradicts what is there"):
        storage.publish()
    assert storage.checkpoint() == "checkpoint 3"


RETRYING = """
import sys, time
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ledger.core.errors import TryLater
from ledger.log import Log
from ledger.store import LogStore, open_store
key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
log = Log(LogStore(open_store(sys.argv[1])), "example.org/log", key.public_key().public_bytes_raw(), key.sign)
for number in range(10):
    while True:
        try:
            log.append([f"{sys.argv[2]} {number}".encode()] * 30)
            break
        except TryLater:
            time.sleep(0.01)
"""


def test_processes_that_append_at_once_lose_nothing(store: Store, database: str) -> None:
    started = [subprocess.Popen([sys.executable, "-c", RETRYING, database, name]) for name in "abc"]
    assert [process.wait() for process in started] == [0, 0, 0]
    log = Log(LogStore(store), ORIGIN, PUBLIC_KEY, KEY.sign)
    found = list(log.entries(0, log.head().size))
    assert sorted(found) == sorted([f"{name} {number}".encode() for name in "abc" for number in range(10)] * 30)
    # Batches are never mixed.
    assert all(len(set(found[at : at + 30])) == 1 for at in range(0, len(found), 30))
    assert check(LogStore(store), ORIGIN, PUBLIC_KEY).size == 900
