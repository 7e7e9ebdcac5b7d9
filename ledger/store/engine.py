"""Opening a database, and what its errors mean for the caller."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from ledger.core.errors import FixInput, NeedPermission, ScanSealError, Stop, TryLater
from ledger.store import migration

LOCK_TIMEOUT_S: Final = 10
"""How long a statement waits for another process's lock before it becomes `TryLater`."""
CONNECTIONS: Final = 32
"""Connections to a SQLite file that are kept open: opening one takes longer than most questions."""
_WRITES: Final = "scanseal_writes"


class Store:
    """An open database at this version's schema. Safe to share between threads, not across a fork.

    `reading()` and `writing()` give a connection inside one transaction, committed when the block ends and rolled back when it
    raises; `writing()` takes SQLite's write lock at once, so what it reads stays true until it commits. Database errors leave
    the block as `TryLater` (locked, full, unreachable), `NeedPermission` (read-only, denied) or `Stop` (damaged).
    """

    def __init__(
        self, engine: Engine, name: str, read_only: bool = False, turn: AbstractContextManager[object] | None = None
    ) -> None:
        """`turn`: held by the thread that writes, where only one can."""
        self.engine = engine
        self.name = name
        self.read_only = read_only
        self._turn = turn or nullcontext()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with _translated(self.name), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        if self.read_only:
            raise NeedPermission(f"{self.name} is open for reading only")
        with _translated(self.name), self._turn, self.engine.connect() as connection:
            connection = connection.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    def close(self) -> None:
        self.engine.dispose()


def open_store(url_or_path: str | Path, *, read_only: bool = False, lock_timeout_s: int = LOCK_TIMEOUT_S) -> Store:
    """The store at a SQLite file (made when missing, for its owner alone) or a SQLAlchemy URL of PostgreSQL, schema up to date.

    Raises `FixInput` (no such folder or file, not our database, written by a newer version), `NeedPermission` (read-only,
    denied) and `TryLater` (locked, full, out of reach). With `read_only` nothing is made or migrated.
    """
    given = str(url_or_path)
    store = (_server if "://" in given else _file)(given, read_only, lock_timeout_s)
    try:
        if read_only:
            with store.reading() as connection:
                if migration.revision(connection) != migration.newest():
                    raise FixInput("its schema is older than this version's: open it once for writing")
        else:
            with store.reading() as connection:
                current = migration.revision(connection) == migration.newest()
            if not current:
                with store.writing() as connection:
                    migration.migrate(connection)
    except FixInput as error:
        store.close()
        raise FixInput(f"{store.name}: {error}") from error
    except ScanSealError:
        store.close()
        raise
    return store


# ---- SQLite ---------------------------------------------------------------------------------------------------------


def _file(given: str, read_only: bool, lock_timeout_s: int) -> Store:
    path = Path(given)
    if path.is_dir() or not path.parent.is_dir():
        raise FixInput(f"{path} is not a place for a database file: name a file in a folder that exists")
    if read_only and not path.exists():
        raise FixInput(f"there is no database at {path}")
    if not read_only:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
            raise (NeedPermission if denied else TryLater)(f"{path} cannot be written: {error.strerror}") from error

    def connect() -> sqlite3.Connection:
        address = f"file:{quote(str(path.absolute()))}?mode={'ro' if read_only else 'rw'}"
        # isolation_level None: the transactions are SQLAlchemy's to begin, not the driver's to guess.
        opened = sqlite3.connect(address, uri=True, timeout=lock_timeout_s, isolation_level=None, check_same_thread=False)
        for setting in ("foreign_keys = ON", "synchronous = FULL", "secure_delete = ON", "trusted_schema = OFF"):
            opened.execute(f"PRAGMA {setting}")
        return opened

    if not read_only:
        with _translated(given), closing(connect()) as opened:
            _use_wal(opened, time.monotonic() + lock_timeout_s)
    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool, pool_size=CONNECTIONS)
    event.listen(engine, "begin", _begin)
    return Store(engine, given, read_only, _Turn(given, lock_timeout_s))


class _Turn:
    """Lets the writing threads of one process wait for each other: SQLite's own waiting sleeps for longer and longer, so that
    of many threads some would wait for seconds."""

    def __init__(self, name: str, timeout_s: float) -> None:
        self._lock, self._name, self._timeout_s = threading.Lock(), name, timeout_s

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=self._timeout_s):
            raise TryLater(f"{self._name} is locked by another thread")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _use_wal(opened: sqlite3.Connection, deadline: float) -> None:
    # Changing the journal mode does not wait for locks by itself: two processes may open a new file at the same time.
    while True:
        try:
            opened.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


# ---- PostgreSQL -----------------------------------------------------------------------------------------------------


def _server(given: str, read_only: bool, lock_timeout_s: int) -> Store:
    try:
        url = make_url(given)
        if url.get_backend_name() != "postgresql":
            raise FixInput("a database is a SQLite file's path or a postgresql+psycopg:// URL")
        options = f"-c lock_timeout={lock_timeout_s}s -c synchronous_commit=on"
        options += " -c default_transaction_read_only=on" if read_only else ""
        engine = create_engine(url, connect_args={"options": options, "connect_timeout": LOCK_TIMEOUT_S}, pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError) as error:
        raise FixInput("the database URL is malformed or names an unknown driver") from error
    except ModuleNotFoundError as error:
        raise FixInput(f"the driver of {url.drivername} is not installed: pip install psycopg[binary]") from error
    return Store(engine, url.render_as_string(hide_password=True), read_only)


# ---- errors ---------------------------------------------------------------------------------------------------------


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise Stop(f"{name}: what was written contradicts what is there: {_first_line(error)}") from error
    except (DBAPIError, sqlite3.Error) as error:
        family, meaning = _meaning(error.orig if isinstance(error, DBAPIError) else error)
        raise family(f"{name} {meaning}: {_first_line(error)}") from error
    except PoolTimeout as error:
        raise TryLater(f"{name} has too many connections in use") from error


def _first_line(error: Exception) -> str:
    return str(error.orig if isinstance(error, DBAPIError) else error).strip().partition("\n")[0]


_SQLITE: Final[dict[int, tuple[type[ScanSealError], str]]] = {
    sqlite3.SQLITE_BUSY: (TryLater, "is locked by another process"),
    sqlite3.SQLITE_LOCKED: (TryLater, "is locked by another connection"),
    sqlite3.SQLITE_FULL: (TryLater, "has no room left, free some disk space"),
    sqlite3.SQLITE_IOERR: (TryLater, "could not be read or written"),
    sqlite3.SQLITE_READONLY: (NeedPermission, "or its folder is read-only"),
    sqlite3.SQLITE_PERM: (NeedPermission, "may not be opened"),
    sqlite3.SQLITE_CANTOPEN: (NeedPermission, "or its folder may not be opened"),
    sqlite3.SQLITE_AUTH: (NeedPermission, "may not be used"),
    sqlite3.SQLITE_NOTADB: (FixInput, "is not a database"),
    sqlite3.SQLITE_CORRUPT: (Stop, "is damaged, restore it from a copy"),
}
# SQLSTATE, by its longest known beginning: PostgreSQL, appendix A.
_SQLSTATE: Final[dict[str, tuple[type[ScanSealError], str]]] = {
    "08": (TryLater, "is out of reach"),
    "25006": (NeedPermission, "is read-only"),
    "28": (NeedPermission, "refused the login"),
    "3D": (FixInput, "names no database of that server"),
    "40": (TryLater, "was changed by another process at the same moment"),
    "42501": (NeedPermission, "does not allow it"),
    "53": (TryLater, "has no room left"),
    "55P03": (TryLater, "is locked by another process"),
    "57": (TryLater, "is shutting down or was interrupted"),
    "58": (TryLater, "could not be read or written"),
    "XX": (Stop, "is damaged, restore it from a copy"),
}


def _meaning(error: Any) -> tuple[type[ScanSealError], str]:
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        return _SQLITE.get((code or 0) & 0xFF, (Stop, "did not do what was asked"))
    state = getattr(error, "sqlstate", None)
    if state is None:
        # psycopg gives no SQLSTATE when the server was never reached.
        return TryLater, "is out of reach"
    for known, meaning in _SQLSTATE.items():
        if state.startswith(known):
            return meaning
    return Stop, "did not do what was asked"
