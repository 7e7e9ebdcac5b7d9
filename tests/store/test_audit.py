"""Workbooks of audits: whose file they take, what they refuse, and that a list that is wrong leaves nothing behind."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.audit.completeness import conclude
from ledger.audit.reconciling import Reconciling
from ledger.audit.workbook import Examined, Source
from ledger.core.errors import EvidenceInvalid, FixInput, NeedPermission, Stop, TryLater
from ledger.core.manifest import Entry
from ledger.core.verdict import Token, Verdict
from ledger.store import open_store
from ledger.store.audit import Workbook
from tests.audit.making import IDENTITY, Simulator, audited, entry, header, nothing, scan, scope, source


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "book.sqlite"


def test_a_workbook_is_for_its_owner_alone(path: Path) -> None:
    Workbook(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_place_that_is_none_is_told(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere" / "book.sqlite"):
        with pytest.raises(FixInput, match="not a place for an audit's workbook"):
            Workbook(place)


def test_another_database_is_not_taken_for_a_workbook_and_not_changed(tmp_path: Path) -> None:
    store = tmp_path / "site.db"
    open_store(store).close()
    before = store.read_bytes()
    with pytest.raises(FixInput, match="no audit's workbook: nothing was changed"):
        Workbook(store)
    assert store.read_bytes() == before


def test_a_file_that_is_no_database_is_told(path: Path) -> None:
    path.write_bytes(b"subject,visit\n" * 100)
    with pytest.raises(FixInput, match="is not a database"):
        Workbook(path)


def test_a_workbook_of_another_version_is_refused(path: Path) -> None:
    Workbook(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(FixInput, match="another version of ScanSeal"):
        Workbook(path)


def test_half_a_workbook_is_told(path: Path) -> None:
    audited(path, [source(header(), [entry(number) for number in range(2000)])], []).close()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises((Stop, FixInput), match=r"damaged|not a database"):
        conclude(audited(path, [], []), scope(), 0, 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(NeedPermission):
        Workbook(tmp_path / "book.sqlite")


def test_one_process_at_a_time(path: Path) -> None:
    book = Workbook(path)
    program = f"from ledger.store.audit import Workbook; from pathlib import Path; Workbook(Path({str(path)!r}))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(one for one in sys.path if one)}
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert "TryLater" in other.stderr
    assert "locked by another process" in other.stderr
    book.close()
    Workbook(path).close()


def test_what_is_noted_is_there_in_the_next_run(path: Path) -> None:
    book = Workbook(path)
    with pytest.raises(FixInput, match="no audit was run"):
        _ = book.started
    book.begin(IDENTITY, 1234)
    book.note("scope", "one")
    book.note("scope", "two")
    book.close()
    again = Workbook(path)
    assert (again.noted("scope"), again.noted("identity"), again.started) == ("two", None, 1234)
    again.close()


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([*(entry(number) for number in range(700)), entry(650)], "line 702 lists the record of line 652 again"),
        ([*(entry(number) for number in range(700)), entry(3)], "line 702 lists the record of line 5 again"),
        ([entry(1), nothing()], "lines 2 and 3 are of one visit"),
        ([nothing(), entry(1), nothing("S-02")], "lines 2 and 3 are of one visit"),
        ([nothing(), entry(1, visit="V2"), nothing()], "lines 2 and 4 are of one visit"),
    ],
)
def test_a_list_that_says_a_thing_twice_leaves_nothing(path: Path, entries: list[Entry], reason: str) -> None:
    # Written behind the writer's back, which refuses it as well.
    whole = [source(header(), [one]) for one in entries]
    spliced = Source("list.jsonl", _Spliced([next(iter(one.reader)) for one in whole], whole[0]), whole[0].digest)  # type: ignore[arg-type]
    book = Workbook(path)
    book.begin(IDENTITY, 0)
    with pytest.raises(EvidenceInvalid, match=f"^list.jsonl: {reason}"):
        book.load([source(header(), [entry("earlier")]), spliced])
    assert (book.begin(IDENTITY, 0)[0], book.find_keys(), list(book.visits())) == (False, [], [])
    book.close()


class _Spliced:
    """A reader of a list that no writer writes."""

    def __init__(self, entries: list[Entry], like: Source) -> None:
        self.header, self.digest, self._entries = like.reader.header, like.digest, entries

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._entries)


def test_the_same_record_may_be_in_two_manifests(path: Path) -> None:
    sources = [source(header(), [entry("a")]), source(header(), [entry("a", visit="V0")], "earlier.jsonl")]
    book = audited(path, sources, [scan("1.dcm", "a")])
    assert conclude(book, scope(), 0, 0).token == "COMPLETE"
    assert [one.row.visit for one in book.sightings()] == ["V1"]
    book.close()


def test_a_batch_that_fails_is_not_there(path: Path) -> None:
    book = audited(path, [source(header(), [entry("a"), entry("b")])], [scan("1.dcm", "a")])
    good = Examined("2.dcm", "1", Verdict(Token.AUTHENTIC), None, 2, None)
    with pytest.raises((TypeError, AttributeError, ValueError)):
        book.put([good, replace(good, path="3.dcm", verdict=replace(good.verdict, sealed_between=(object(), None)))])  # type: ignore[arg-type]
    book.settle()
    assert [one.row.path for one in book.sightings()] == ["1.dcm"]
    book.put([good])
    assert [one.row.path for one in book.sightings()] == ["1.dcm", "2.dcm"]
    book.close()


def test_a_full_disk_loses_nothing(path: Path) -> None:
    entries = [entry(number) for number in range(200)]
    book = audited(path, [source(header(), entries)], [scan("0.dcm", 0)])
    with book._store.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    book.close()
    book = Workbook(path)
    book.begin(IDENTITY, 0)
    with book._store.reading() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    scans = [scan(f"{number}.dcm", number, reason="x" * 1000) for number in range(200)]
    with pytest.raises(TryLater, match="no room left"):
        Reconciling(book, Simulator()).examine(((one.path, one.stamp, one) for one in scans), lambda done: None)
    book.close()
    again = audited(path, [], scans)
    result = conclude(again, scope(), 0, 0)
    assert (result.token, result.present) == ("COMPLETE", 200)
    again.close()
