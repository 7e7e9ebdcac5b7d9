"""What an agent has in its spool, and how far each file is. docs/agent.md.

A file is forwarded and sealed, each at its own pace; it is finished when neither waits any more. Times are microseconds since
1970 and given by the caller.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Row, Select, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from ledger.store.engine import Store
from ledger.store.schema import spooled

Forward = Literal["none", "waiting", "sent", "unsendable"]
Seal = Literal["waiting", "sealed", "received", "none", "refused"]
WAITING: Final = "waiting"
UNSENDABLE: Final = "unsendable"
PAGE: Final = 500
LONGEST: Final = 3600 * 10**6
"""The longest time for which anything is postponed."""


@dataclass(frozen=True)
class Spooled:
    """A file of the spool. `record_id` is the record that was signed of it; `detail` says why there is none."""

    number: int
    name: str
    source: str
    size: int
    received: int
    forward: Forward
    forward_attempts: int
    seal: Seal
    seal_attempts: int
    record_id: bytes | None = None
    detail: str | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether its file is still needed."""
        return WAITING in (self.forward, self.seal)


@dataclass(frozen=True)
class Sealing:
    """What became of a file's seal."""

    number: int
    seal: Seal
    record_id: bytes | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Counts:
    """The spool in figures: files by source and state (`forward waiting`, `seal sealed` ...), the oldest that waits, and the
    bytes of all that have not been removed."""

    states: Mapping[tuple[str, str, str], int]
    oldest_forward: int | None
    oldest_seal: int | None
    files: int
    size: int

    def of(self, step: str, state: str) -> int:
        return sum(count for (_, one, other), count in self.states.items() if (one, other) == (step, state))


class SpoolStore:
    """The spool's book in the site's database. Each write is all or nothing, on disk when it returns, and may be repeated."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, name: str, source: str, size: int, received: int, *, forward: bool, seal: bool) -> bool:
        """Notes a file that lies in the spool; whether it was new."""
        row = {
            "name": name,
            "source": source,
            "size": size,
            "received": received,
            "forward": WAITING if forward else "none",
            "forward_attempts": 0,
            "forward_after": 0,
            "seal": WAITING if seal else "none",
            "seal_attempts": 0,
            "seal_after": 0,
        }
        with self._store.writing() as connection:
            try:
                connection.execute(insert(spooled).values(row))
            except IntegrityError:
                return False
        return True

    def knows(self, name: str) -> bool:
        with self._store.reading() as connection:
            return connection.execute(select(spooled.c.number).where(spooled.c.name == name)).one_or_none() is not None

    def kept(self) -> Iterator[Spooled]:
        """The files that have not been removed, oldest first, in flat memory."""
        last = 0
        while True:
            query = select(spooled).where(spooled.c.number > last, spooled.c.size >= 0).order_by(spooled.c.number)
            rows = self._rows(query.limit(PAGE))
            if not rows:
                return
            yield from rows
            last = rows[-1].number

    # ---- forwarding ----

    def to_forward(self, sources: Collection[str], now: int, limit: int, share: tuple[int, int] = (0, 1)) -> list[Spooled]:
        """The oldest files of these sources that may be sent now; of `share` (which, of how many), those whose turn it is."""
        which, of = share
        return self._rows(
            select(spooled)
            .where(spooled.c.forward == WAITING, _may(spooled.c.forward_after, now), spooled.c.source.in_(sources))
            .where(spooled.c.number % of == which)
            .order_by(spooled.c.number)
            .limit(limit)
        )

    def is_forwarded(self, sources: Collection[str], received_by: int) -> bool:
        """Whether nothing waits to be sent of what these sources had received by then."""
        query = select(spooled.c.number).where(spooled.c.forward == WAITING, spooled.c.source.in_(sources))
        with self._store.reading() as connection:
            return connection.execute(query.where(spooled.c.received <= received_by).limit(1)).one_or_none() is None

    def note_forwarded(self, numbers: Sequence[int]) -> None:
        self._each(update(spooled).where(spooled.c.number == bindparam("at")).values(forward="sent"), numbers)

    def note_unsendable(self, number: int) -> None:
        """It is no DICOM file: nothing waits to send it, and it is never removed."""
        self._each(update(spooled).where(spooled.c.number == bindparam("at")).values(forward=UNSENDABLE), [number])

    def postpone_forward(self, after: Mapping[int, int]) -> None:
        """number -> not before. Counts an attempt."""
        statement = (
            update(spooled)
            .where(spooled.c.number == bindparam("at"))
            .values(forward_attempts=spooled.c.forward_attempts + 1, forward_after=bindparam("then"))
        )
        self._many(statement, [{"at": number, "then": then} for number, then in after.items()])

    def hurry(self) -> None:
        """Lets everything that waits be tried again at once."""
        with self._store.writing() as connection:
            connection.execute(update(spooled).where(spooled.c.forward == WAITING).values(forward_after=0))
            connection.execute(update(spooled).where(spooled.c.seal == WAITING).values(seal_after=0))

    # ---- sealing ----

    def to_seal(self, sources: Collection[str], now: int, limit: int) -> list[Spooled]:
        """The oldest files of these sources that may be sealed now."""
        return self._rows(
            select(spooled)
            .where(spooled.c.seal == WAITING, _may(spooled.c.seal_after, now), spooled.c.source.in_(sources))
            .order_by(spooled.c.number)
            .limit(limit)
        )

    def note_sealed(self, outcomes: Iterable[Sealing]) -> None:
        statement = (
            update(spooled)
            .where(spooled.c.number == bindparam("at"))
            .values(seal=bindparam("state"), record_id=bindparam("record"), detail=bindparam("why"))
        )
        rows = [{"at": one.number, "state": one.seal, "record": one.record_id, "why": one.detail} for one in outcomes]
        self._many(statement, rows)

    def postpone_seal(self, after: Mapping[int, int]) -> None:
        """number -> not before. Counts an attempt."""
        statement = (
            update(spooled)
            .where(spooled.c.number == bindparam("at"))
            .values(seal_attempts=spooled.c.seal_attempts + 1, seal_after=bindparam("then"))
        )
        self._many(statement, [{"at": number, "then": then} for number, then in after.items()])

    # ---- the end ----

    def finish(self, now: int) -> int:
        """Notes the time at files that wait for nothing any more. Returns how many."""
        done = (spooled.c.forward != WAITING) & (spooled.c.seal != WAITING) & spooled.c.finished.is_(None)
        with self._store.writing() as connection:
            return connection.execute(update(spooled).where(done).values(finished=now)).rowcount

    def removable(self, finished_by: int, limit: int = PAGE) -> list[Spooled]:
        """Files that were finished by then and still take room; not those that somebody has to look at."""
        query = select(spooled).where(spooled.c.finished <= finished_by, spooled.c.size >= 0, spooled.c.forward != UNSENDABLE)
        return self._rows(query.order_by(spooled.c.number).limit(limit))

    def note_removed(self, numbers: Sequence[int]) -> None:
        """The files are gone, the rows stay: they say what became of each."""
        self._each(update(spooled).where(spooled.c.number == bindparam("at")).values(size=-1), numbers)

    def forget(self, finished_by: int) -> None:
        """Forgets what was removed and finished by then."""
        with self._store.writing() as connection:
            connection.execute(delete(spooled).where(spooled.c.finished <= finished_by, spooled.c.size < 0))

    def counts(self) -> Counts:
        states: dict[tuple[str, str, str], int] = {}
        with self._store.reading() as connection:
            for step, column in (("forward", spooled.c.forward), ("seal", spooled.c.seal)):
                query = select(spooled.c.source, column, func.count()).group_by(spooled.c.source, column)
                states |= {(source, step, state): count for source, state, count in connection.execute(query)}
            oldest = [
                connection.execute(select(func.min(spooled.c.received)).where(column == WAITING)).scalar_one()
                for column in (spooled.c.forward, spooled.c.seal)
            ]
            kept = select(func.count(), func.coalesce(func.sum(spooled.c.size), 0)).where(spooled.c.size >= 0)
            files, size = connection.execute(kept).one()
        return Counts(states, oldest[0], oldest[1], files, int(size))

    def _each(self, statement: Any, numbers: Sequence[int]) -> None:
        self._many(statement, [{"at": number} for number in numbers])

    def _many(self, statement: Any, rows: Sequence[dict[str, Any]]) -> None:
        if rows:
            with self._store.writing() as connection:
                connection.execute(statement, rows)

    def _rows(self, query: Select[Any]) -> list[Spooled]:
        with self._store.reading() as connection:
            return [_spooled(row) for row in connection.execute(query)]


def _may(after: Any, now: int) -> Any:
    """What was postponed for longer than anything is was postponed by a clock that was ahead."""
    return (after <= now) | (after > now + LONGEST)


def _spooled(row: Row[Any]) -> Spooled:
    return Spooled(
        row.number,
        row.name,
        row.source,
        row.size,
        row.received,
        row.forward,
        row.forward_attempts,
        row.seal,
        row.seal_attempts,
        row.record_id,
        row.detail,
    )
