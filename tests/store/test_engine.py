"""Opening databases: migrations run once, foreign and newer ones are refused, and every failure says what to do."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, select, text

from ledger.core.errors import FixInput, NeedPermission, Stop, TryLater
from ledger.store import migration, open_store
from ledger.store.schema import log_entry, log_head, log_staged, metadata


def one_line(error: BaseException) -> str:
    message = str(error)
    assert "\n" not in message
    return message


def test_the_migrations_make_the_schema(database: str) -> None:
    store = open_store(database)
    with store.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "version_table": migration.VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
        assert connection.execute(select(log_head.c.size)).scalar_one() == 0
    store.close()


def test_opening_again_changes_nothing(database: str) -> None:
    with (first := open_store(database)).writing() as connection:
        connection.execute(insert(log_entry).values(number=0, body=b"kept"))
    first.close()
    with (second := open_store(database)).reading() as connection:
        assert connection.execute(select(log_entry.c.body)).scalar_one() == b"kept"
        assert migration.revision(connection) == migration.newest()
    second.close()


def test_a_database_of_a_newer_version_is_refused(database: str) -> None:
    with (store := open_store(database)).writing() as connection:
        connection.execute(text(f"UPDATE {migration.VERSION_TABLE} SET version_num = '9999'"))
    store.close()
    for read_only in (False, True):
        with pytest.raises(FixInput, match=r"newer version of ScanSeal \(schema 9999, this version knows"):
            open_store(database, read_only=read_only)


def test_a_block_that_raises_writes_nothing(database: str) -> None:
    store = open_store(database)
    rows = [{"number": 0, "body": b"undone"}, {"number": 0, "body": b"twice"}]
    with contextlib.suppress(Stop), store.writing() as connection:
        for row in rows:
            connection.execute(insert(log_entry).values(row))
    with store.reading() as connection:
        assert connection.execute(select(log_entry)).all() == []
    store.close()


def test_a_contradiction_stops(database: str) -> None:
    store = open_store(database)
    with pytest.raises(Stop, match="contradicts what is there") as caught, store.writing() as connection:
        connection.execute(insert(log_entry), [{"number": 0, "body": b"a"}, {"number": 0, "body": b"b"}])
    one_line(caught.value)
    store.close()


def test_reading_only_cannot_write_make_or_migrate(database: str) -> None:
    if database.endswith(".db"):
        with pytest.raises(FixInput, match="there is no database at"):
            open_store(database, read_only=True)
        sqlite3.connect(database).close()
    with pytest.raises(FixInput, match="open it once for writing"):
        open_store(database, read_only=True)
    open_store(database).close()
    store = open_store(database, read_only=True)
    with pytest.raises(NeedPermission, match="open for reading only"), store.writing():
        pass
    with pytest.raises(NeedPermission, match="read-only") as caught, store.reading() as connection:
        connection.execute(insert(log_entry).values(number=0, body=b"x"))
    one_line(caught.value)
    store.close()


def test_a_locked_database_says_try_later(database: str) -> None:
    store, other = open_store(database), open_store(database, lock_timeout_s=1)
    with store.writing() as connection:
        connection.execute(select(log_head).with_for_update())
        with pytest.raises(TryLater, match="locked by another process") as caught, other.writing() as second:
            second.execute(select(log_head).with_for_update())
    one_line(caught.value)
    with other.writing() as second:
        second.execute(select(log_head).with_for_update())
    store.close()
    other.close()


def test_many_processes_open_a_new_database_at_once(database: str) -> None:
    program = "import sys; from ledger.store import open_store; open_store(sys.argv[1]).close()"
    started = [subprocess.Popen([sys.executable, "-c", program, database]) for _ in range(4)]
    assert [process.wait() for process in started] == [0, 0, 0, 0]
    with (store := open_store(database)).reading() as connection:
        assert connection.execute(select(log_head.c.size)).all() == [(0,)]
    store.close()


def test_threads_share_a_store(database: str) -> None:
    store = open_store(database)

    def write(number: int) -> None:
        with store.writing() as connection:
            connection.execute(insert(log_entry).values(number=number, body=b"x"))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.reading() as connection:
        assert len(connection.execute(select(log_entry)).all()) == 8
    store.close()


def test_a_thread_that_writes_too_long_keeps_no_other_waiting_for_ever(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db", lock_timeout_s=1)
    refused: list[TryLater] = []

    def write() -> None:
        try:
            with store.writing():
                pass
        except TryLater as error:
            refused.append(error)

    with store.writing():
        other = threading.Thread(target=write)
        other.start()
        other.join()
    one_line(*refused)
    assert "locked by another thread" in str(refused[0])
    write()
    assert len(refused) == 1
    store.close()


# ---- SQLite's own ---------------------------------------------------------------------------------------------------


def test_sqlite_is_durable_strict_and_private(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = open_store(path)
    with store.reading() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete", "busy_timeout", "trusted_schema")
        }
    assert settings == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "secure_delete": 1,
        "busy_timeout": 10_000,
        "trusted_schema": 0,
    }
    with store.writing():
        files = list(tmp_path.iterdir())
        assert len(files) > 1
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    store.close()


def test_a_number_is_never_used_again(database: str) -> None:
    store = open_store(database)
    numbers = []
    for _ in range(2):
        with store.writing() as connection:
            row = {"old_size": 0, "new_size": 1, "checkpoint": "", "entries": b"", "tiles": b""}
            numbers.append(connection.execute(insert(log_staged).values(row).returning(log_staged.c.id)).scalar_one())
            connection.execute(log_staged.delete())
    assert numbers[0] < numbers[1]
    store.close()


def test_a_full_disk_says_try_later_and_loses_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db")
    with store.writing() as connection:
        connection.execute(insert(log_entry).values(number=0, body=b"kept"))
        # SQLite's own limit stands for the disk's: the same SQLITE_FULL comes from both.
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(TryLater, match="no room left") as caught, store.writing() as connection:
        connection.execute(insert(log_entry).values(number=1, body=bytes(100_000)))
    one_line(caught.value)
    with store.writing() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
        connection.execute(insert(log_entry).values(number=1, body=bytes(100_000)))
        assert len(connection.execute(select(log_entry)).all()) == 2
    store.close()


AS_NOBODY = """
import os, sys
from ledger.core.errors import NeedPermission
from ledger.store import open_store
open_store(sys.argv[3]).close()  # loads every module: the other user may not reach them
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    open_store(sys.argv[1], read_only=sys.argv[2] == "ro").close()
except NeedPermission as error:
    print(error)
    raise SystemExit(2)
"""


def as_nobody(path: Path, mode: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", AS_NOBODY, str(path), mode, str(path.parent.parent / "ours.db")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder that another user can reach: pytest's own is closed to others."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("mode", ["rw", "ro"])
def test_a_read_only_folder_says_need_permission(open_folder: Path, mode: str) -> None:
    folder = open_folder / "readonly"
    folder.mkdir()
    path = folder / "store.db"
    if mode == "ro":
        open_store(path).close()
        path.chmod(0o444)
    folder.chmod(0o555)
    try:
        result = as_nobody(path, mode)
    finally:
        folder.chmod(0o755)
    assert (result.returncode, result.stdout.count("\n")) == (2, 1), result.stderr
    assert str(path) in result.stdout


def test_a_read_only_file_says_need_permission(open_folder: Path) -> None:
    path = open_folder / "store.db"
    open_store(path).close()
    path.chmod(0o444)
    result = as_nobody(path, "rw")
    assert (result.returncode, result.stdout.count("\n")) == (2, 1), result.stderr


def test_places_that_cannot_hold_a_database_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FixInput, match="name a file in a folder that exists"):
        open_store(tmp_path)
    with pytest.raises(FixInput, match="name a file in a folder that exists"):
        open_store(tmp_path / "no" / "store.db")
    other = tmp_path / "letter.txt"
    other.write_text("Dear Sir or Madam, " * 100)
    with pytest.raises(FixInput, match="is not a database"):
        open_store(other)
    foreign = sqlite3.connect(tmp_path / "foreign.db")
    foreign.execute("CREATE TABLE recipes (name)")
    foreign.close()
    with pytest.raises(FixInput, match="database of another program"):
        open_store(tmp_path / "foreign.db")


def test_a_path_with_odd_letters_is_only_a_path(tmp_path: Path) -> None:
    path = tmp_path / "ein ? Röntgen#%20&mode=memory.db"
    open_store(path).close()
    assert path.exists()


# ---- PostgreSQL's own -----------------------------------------------------------------------------------------------


def test_a_server_out_of_reach_says_try_later(tmp_path: Path) -> None:
    with pytest.raises(TryLater, match="out of reach") as caught:
        open_store(f"postgresql+psycopg://user:secret@/db?host={tmp_path}")
    assert "secret" not in one_line(caught.value)


def test_only_databases_that_we_know_are_opened() -> None:
    for url in ("mysql://host/db", "postgresql+nothing://host/db", "://", "sqlite:///x.db"):
        with pytest.raises(FixInput):
            open_store(url)


def test_a_missing_server_database_is_named(postgresql: str) -> None:
    with pytest.raises((FixInput, TryLater), match="does not exist"):
        open_store(f"postgresql+psycopg://scanseal@/nowhere?host={postgresql}")


def test_the_umask_of_the_process_is_not_touched(tmp_path: Path) -> None:
    before = os.umask(0o022)
    os.umask(before)
    open_store(tmp_path / "store.db").close()
    after = os.umask(before)
    assert after == before
