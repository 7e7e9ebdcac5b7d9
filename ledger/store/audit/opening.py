"""Opening a workbook's file, for one process at a time."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import StaticPool

from ledger.core.errors import FixInput, NeedPermission, TryLater
from ledger.store.audit.schema import APPLICATION, VERSION, metadata
from ledger.store.engine import Store

_LOCK_TIMEOUT_S: Final = 2


def open_file(path: Path) -> Store:
    """The database in a file, made when missing; nobody else opens it until this one is closed."""
    try:
        # For its owner alone: it knows what was withheld.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        raise (NeedPermission if denied else TryLater)(f"{path} cannot be written: {error.strerror}") from error

    def connect() -> sqlite3.Connection:
        address = f"file:{quote(str(path.absolute()))}?mode=rw"
        opened = sqlite3.connect(address, uri=True, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        # Exclusive: two runs in one workbook would each forget what the other saw.
        for setting in ("locking_mode = EXCLUSIVE", "synchronous = FULL", "trusted_schema = OFF"):
            opened.execute(f"PRAGMA {setting}")
        return opened

    engine = create_engine("sqlite://", creator=connect, poolclass=StaticPool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN EXCLUSIVE"))
    return Store(engine, str(path))


def prepare(connection: Connection, path: Path) -> None:
    """Makes the tables in an empty file. Raises FixInput for a file that is something else."""
    application, version, tables = (
        connection.exec_driver_sql(question).scalar_one()
        for question in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    )
    if not tables:
        metadata.create_all(connection)
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION}")
        connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
    elif application != APPLICATION:
        raise FixInput(f"{path} is a database, but no audit's workbook: nothing was changed in it")
    elif version != VERSION:
        raise FixInput(f"{path} is the workbook of another version of ScanSeal: finish it with that one, or begin anew")
