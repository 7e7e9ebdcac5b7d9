"""Bringing a database to the schema of this version: forward only, all or nothing, one process at a time."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from sqlalchemy import Connection, column, inspect, select, table, text

from ledger.core.errors import FixInput

VERSION_TABLE: Final = "scanseal_version"
_ADVISORY_LOCK: Final = 0x5CA45EA1


def newest() -> str:
    """The last revision that this version of the package knows."""
    versions = files("ledger.store.migrations").joinpath("versions")
    return max(file.name[:4] for file in versions.iterdir() if file.name.endswith(".py"))


def revision(connection: Connection) -> str | None:
    """The revision that the database is at, None when it is empty. Refuses a database that is not ours, or is too new."""
    tables = set(inspect(connection).get_table_names())
    if VERSION_TABLE not in tables:
        if tables and connection.dialect.name == "sqlite":
            raise FixInput("this is a database of another program; give ScanSeal its own file")
        return None
    found = connection.execute(select(column("version_num")).select_from(table(VERSION_TABLE))).scalar_one_or_none()
    if found is not None and found > newest():
        raise FixInput(
            f"this database was written by a newer version of ScanSeal (schema {found}, this version knows {newest()}):"
            " install that version"
        )
    return None if found is None else str(found)


def migrate(connection: Connection) -> None:
    """Run what is missing, inside the caller's transaction. Whoever comes second waits, then finds nothing to do."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
    if revision(connection) == newest():
        return
    # Alembic is needed only here, and costs a quarter of a second to import.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "ledger.store:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
