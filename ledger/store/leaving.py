"""Which evidence of a site is to be left with its node, is there, and is to be taken back. FORMAT.md §12."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select, update

from ledger.core.deposit import Deposit
from ledger.store.engine import Store
from ledger.store.schema import record

WAITS: Final = 0
LEFT: Final = 1
WITHDRAWN: Final = 2
REFUSED: Final = 3


@dataclass(frozen=True)
class Leaving:
    """A record whose evidence is to be left with the node."""

    record_id: bytes
    deposit: Deposit


class LeavingStore:
    """Each note is durable when it returns, and may be repeated."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def waiting(self, final_size: int, limit: int) -> list[Leaving]:
        """The oldest that have a place below `final_size` in the log, and are not at the node yet."""
        columns = record.c
        query = select(columns.record_id, columns.deposit).where(columns.deposited == WAITS, columns.log_index < final_size)
        with self._store.reading() as connection:
            rows = connection.execute(query.order_by(columns.log_index).limit(limit)).all()
        return [Leaving(row.record_id, Deposit(row.deposit)) for row in rows]

    def note(self, record_id: bytes, *, is_refused: bool = False) -> None:
        """It is at the node, or will never be. One that was redacted meanwhile stays to be taken back."""
        values = {"deposited": REFUSED if is_refused else LEFT}
        with self._store.writing() as connection:
            connection.execute(
                update(record).where(record.c.record_id == record_id, record.c.deposited == WAITS).values(**values)
            )

    def to_withdraw(self, limit: int) -> list[tuple[bytes, bytes]]:
        """(record id, token) of what is to be taken back."""
        columns = record.c
        query = select(columns.record_id, columns.deposit).where(columns.deposited == WITHDRAWN)
        with self._store.reading() as connection:
            return [(row.record_id, row.deposit) for row in connection.execute(query.limit(limit))]

    def note_withdrawn(self, record_id: bytes) -> None:
        gone: dict[str, Any] = {"deposited": None, "deposit": None}
        with self._store.writing() as connection:
            connection.execute(update(record).where(record.c.record_id == record_id).values(**gone))


def take_back(connection: Connection, study: int) -> None:
    """Has what is at the node of a study taken back, and forgets here what would open it."""
    columns = record.c
    query = select(columns.number, columns.deposit).where(columns.study == study, columns.deposited.in_([WAITS, LEFT, REFUSED]))
    for row in connection.execute(query).all():
        # One that waits may be at the node all the same: its note was never written.
        values = {"deposited": WITHDRAWN, "deposit": Deposit(row.deposit).token}
        connection.execute(update(record).where(columns.number == row.number).values(**values))
