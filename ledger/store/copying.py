"""A copy of a store's file while others write to it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from ledger.core.errors import FixInput, Stop, TryLater


def copy_store(source: Path, target: Path) -> None:
    """Copies the database in `source`, as of one moment, to the new file `target`; writers need not wait. On disk, and found
    whole, when it returns.

    By SQLite's online backup, with what is in its write-ahead log: a copy of the file alone would be of no moment at all.
    Raises FixInput where there is no database, TryLater (nothing is left at `target`), Stop where the database is damaged.
    """
    if not source.is_file():
        raise FixInput(f"there is no database at {source}")
    try:
        address = f"file:{quote(str(source.absolute()))}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=10)) as opened, closing(sqlite3.connect(target)) as copied:
            copied.execute("PRAGMA synchronous = FULL")
            opened.backup(copied)
            found = copied.execute("PRAGMA integrity_check").fetchone()[0]
    except sqlite3.DatabaseError as error:
        target.unlink(missing_ok=True)
        raise TryLater(f"{source} could not be copied ({error})") from error
    if found != "ok":
        target.unlink(missing_ok=True)
        raise Stop(f"{source} is damaged: keep your older copies")


def settle(path: Path) -> None:
    """Makes a database that nobody has open one file, whole by itself: whoever opens it for writing chooses its mode anew."""
    try:
        with closing(sqlite3.connect(path)) as opened:
            opened.execute("PRAGMA synchronous = FULL")
            opened.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.DatabaseError as error:
        raise TryLater(f"{path} could not be written ({error})") from error
