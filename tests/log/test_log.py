"""The log over a real store: indices, checkpoints, proofs, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from appender import KEY, ORIGIN, PUBLIC_KEY, entry
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator import Switched
from sqlalchemy import delete, update

from ledger.core import merkle
from ledger.core.checkpoint import parse_and_verify
from ledger.core.errors import EvidenceInvalid, FixInput, NeedPermission, Stop, TryLater
from ledger.log import Batch, Log, check
from ledger.log.log import BATCH_LIMIT
from ledger.store import LogStore, Store, open_store
from ledger.store.schema import log_entry, log_head, log_tile


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "store.db")
    yield opened
    opened.close()


@pytest.fixture
def log(store: Store) -> Log:
    return Log(LogStore(store), ORIGIN, PUBLIC_KEY, KEY.sign)


def entries(start: int, stop: int) -> list[bytes]:
    return [entry(number) for number in range(start, stop)]


def test_an_empty_log_signs_size_zero(log: Log, store: Store) -> None:
    head = parse_and_verify(log.checkpoint(), ORIGIN, PUBLIC_KEY)
    assert head == log.head()
    assert (head.size, head.root) == (0, merkle.root_of([]))
    assert log.append([]) == range(0, 0)
    reader = Log(LogStore(store), ORIGIN, PUBLIC_KEY)
    assert reader.head() == head
    with pytest.raises(FixInput, match="is empty"):
        reader.checkpoint()


@given(st.lists(st.integers(1, 300), min_size=1, max_size=6), st.data())
@settings(max_examples=12, deadline=None)
def test_every_entry_is_proved_in_every_later_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, batches: list[int], data: st.DataObject
) -> None:
    store = open_store(tmp_path_factory.mktemp("log") / "store.db")
    log = Log(LogStore(store), ORIGIN, PUBLIC_KEY, KEY.sign)
    heads = []
    size = 0
    for count in batches:
        assert log.append(entries(size, size + count)) == range(size, size + count)
        size += count
        heads.append(parse_and_verify(log.checkpoint(), ORIGIN, PUBLIC_KEY))
        assert heads[-1].size == size
    leaves = [merkle.leaf_hash(body) for body in log.entries(0, size)]
    for at, head in enumerate(heads):
        assert head.root == merkle.root_of(leaves[: head.size])
        index = data.draw(st.integers(0, head.size - 1))
        proof = log.inclusion_proof(index, head.size)
        merkle.verify_inclusion(merkle.leaf_hash(log.entry(index)), index, head.size, proof, head.root)
        for older in heads[: at + 1]:
            proof = log.consistency_proof(older.size, head.size)
            merkle.verify_consistency(older.size, older.root, head.size, head.root, proof)
    assert check(LogStore(store), ORIGIN, PUBLIC_KEY) == heads[-1]
    store.close()


def test_a_proof_in_70000_leaves_reads_a_handful_of_tiles(store: Store) -> None:
    storage = Switched(LogStore(store))
    log = Log(storage, ORIGIN, PUBLIC_KEY, KEY.sign)
    for start in range(0, 70_000, 10_000):
        log.append(entries(start, start + 10_000))
    head = log.head()
    for index in (0, 1, 255, 256, 32_767, 65_535, 65_536, 69_887, 69_888, 69_999):
        storage.tiles_read = 0
        proof = log.inclusion_proof(index, head.size)
        assert storage.tiles_read <= 5
        merkle.verify_inclusion(merkle.leaf_hash(entry(index)), index, head.size, proof, head.root)
    for old in (1, 256, 12_345, 65_536, 69_999):
        storage.tiles_read = 0
        log.consistency_proof(old, head.size)
        assert storage.tiles_read <= 6
    storage.tiles_read = 0
    log.append([entry(70_000)])
    assert storage.tiles_read <= 3


def test_entries_come_back_in_order_and_only_those_that_are_there(log: Log) -> None:
    log.append(entries(0, 700))
    assert list(log.entries(250, 600)) == entries(250, 600)
    assert list(log.entries(700, 700)) == []
    assert log.entry(699) == entry(699)
    for start, stop in ((0, 701), (-1, 3), (5, 4)):
        with pytest.raises(FixInput, match=f"entries {start} to {stop} are not all in a log of size 700"):
            log.entries(start, stop)


def test_proofs_outside_of_the_log_are_refused(log: Log) -> None:
    log.append(entries(0, 5))
    with pytest.raises(FixInput, match="leaf 5 is outside a tree of size 5"):
        log.inclusion_proof(5, 5)
    with pytest.raises(FixInput, match="the log has 5 leaves, not 6"):
        log.inclusion_proof(0, 6)
    with pytest.raises(FixInput, match="the log has 5 leaves, not 300"):
        log.consistency_proof(5, 300)
    with pytest.raises(FixInput, match="no consistency proof leads from size 0 to size 5"):
        log.consistency_proof(0, 5)


def test_entries_that_no_mirror_could_carry_are_refused(log: Log) -> None:
    assert log.append([bytes(65_535)]) == range(0, 1)
    with pytest.raises(FixInput, match="an entry of 65536 bytes is too long"):
        log.append([bytes(65_536)])
    with pytest.raises(FixInput, match="an entry is empty"):
        log.append([b"x", b""])
    with pytest.raises(FixInput, match="append it in parts"):
        log.append([bytes(65_000)] * (BATCH_LIMIT // 65_000 + 1))
    assert log.head().size == 1


def test_without_the_key_a_log_is_read_only(log: Log, store: Store) -> None:
    log.append(entries(0, 3))
    reader = Log(LogStore(store), ORIGIN, PUBLIC_KEY)
    assert reader.checkpoint() == log.checkpoint()
    assert reader.inclusion_proof(1, 3) == log.inclusion_proof(1, 3)
    with pytest.raises(NeedPermission, match="its key is not here"):
        reader.append(entries(3, 4))


def test_a_store_of_another_log_or_key_is_refused(log: Log, store: Store) -> None:
    log.append(entries(0, 3))
    with pytest.raises(EvidenceInvalid, match="no signature by key"):
        Log(LogStore(store), "example.org/other", PUBLIC_KEY, KEY.sign)
    with pytest.raises(EvidenceInvalid, match="no signature by key"):
        Log(LogStore(store), ORIGIN, bytes(32), KEY.sign)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_tile_is_never_signed_over(log: Log, store: Store, damage: str) -> None:
    log.append(entries(0, 300))
    before = log.checkpoint()
    edge = (log_tile.c.level == 0) & (log_tile.c.number == 1)
    with store.writing() as connection:
        hashes = connection.execute(log_tile.select().where(edge)).one().hashes
        match damage:
            case "flip":
                connection.execute(update(log_tile).where(edge).values(hashes=bytes([hashes[0] ^ 1]) + hashes[1:]))
            case "truncate":
                connection.execute(update(log_tile).where(edge).values(hashes=hashes[:-1]))
            case "remove":
                connection.execute(delete(log_tile).where(edge))
    with pytest.raises(Stop, match="store is damaged"):
        log.append(entries(300, 301))
    with pytest.raises(Stop, match="store is damaged"):
        Log(LogStore(store), ORIGIN, PUBLIC_KEY, KEY.sign)
    assert log.checkpoint() == before


def test_a_missing_tile_stops_a_proof(log: Log, store: Store) -> None:
    log.append(entries(0, 700))
    with store.writing() as connection:
        connection.execute(delete(log_tile).where(log_tile.c.level == 0, log_tile.c.number == 1))
        connection.execute(delete(log_entry).where(log_entry.c.number == 17))
    with pytest.raises(Stop, match=r"tile/0/001 is missing"):
        log.inclusion_proof(300, 700)
    with pytest.raises(EvidenceInvalid, match="entry 17 is missing"):
        list(log.entries(0, 700))


def test_a_batch_that_cannot_be_published_yet_is_appended_once(store: Store) -> None:
    """Sequenced and on disk, but readers must wait: the caller is told the indices, the next call publishes."""
    full = False

    def at(point: str) -> None:
        nonlocal full
        if point == "swapped":
            full = True
        if point == "before publish" and full:
            raise TryLater("no room left")

    log = Log(Switched(LogStore(store), at), ORIGIN, PUBLIC_KEY, KEY.sign)
    assert log.append(entries(0, 5)) == range(0, 5)
    with pytest.raises(TryLater):
        log.head()
    with pytest.raises(TryLater):
        log.append(entries(5, 6))
    full = False
    assert log.head().size == 5
    assert log.append(entries(5, 6)) == range(5, 6)
    full = False
    assert list(log.entries(0, 6)) == entries(0, 6)


def test_a_batch_that_came_too_late_can_never_be_sequenced(log: Log, store: Store) -> None:
    storage = LogStore(store)
    late = storage.stage(Batch(0, 1, entries(9, 10), [(merkle.Tile(0, 0, 1), bytes(32))], "late"))
    log.append(entries(0, 3))
    assert storage.swap_head(0, late) is False
    assert storage.swap_head(3, late) is False
    wrong = storage.stage(Batch(2, 4, entries(0, 2), [(merkle.Tile(0, 0, 4), bytes(128))], "of another size"))
    assert storage.swap_head(3, wrong) is False
    with store.reading() as connection:
        assert connection.execute(log_head.select()).one().size == 3
