"""Records that other sites handed in, on their way into this database's log; who may hand in, and with which keys."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, Table, bindparam, delete, func, insert, select, update

from ledger.core.errors import FixInput, NeedPermission, ScanSealError
from ledger.log.submission import KeyChain, KeyForked, OutOfOrder, Submission, by_key
from ledger.store.engine import Store
from ledger.store.records import parts
from ledger.store.schema import record, submitted, submitting_client, submitting_key

COUNT_TO: Final = 1 << 20
"""A queue that is longer than this is not counted to its end."""


@dataclass(frozen=True)
class Client:
    """A site that may hand in records. `added` in seconds since 1970."""

    name: str
    added: int


@dataclass(frozen=True)
class Key:
    """A key whose records were handed in; `forked` is a log entry that contradicts what was taken."""

    signer: bytes
    certificate: bytes
    records: int
    forked: bytes | None


@dataclass(frozen=True)
class Placed:
    """What became of a record: its place in the log, None while it is queued; whether it was not here before."""

    record_id: bytes
    entry: bytes
    log_index: int | None
    is_new: bool = False


class SubmittedStore:
    """What other sites handed in. Any number of processes may use one database at once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # ---- who may ----

    def add_client(self, name: str, token: str, now: int) -> None:
        """Raises FixInput where the name is taken."""
        with self._store.writing() as connection:
            if connection.execute(select(submitting_client.c.name).where(submitting_client.c.name == name)).first():
                raise FixInput(f"{name} has a token already: remove it first, if it is lost")
            connection.execute(insert(submitting_client).values(name=name, token=_hash(token), added=now))

    def remove_client(self, name: str) -> None:
        """Raises FixInput where there is none of this name."""
        with self._store.writing() as connection:
            if connection.execute(delete(submitting_client).where(submitting_client.c.name == name)).rowcount != 1:
                raise FixInput(f"{name!r} has no token here: `scanseal node client list` shows who has")

    def clients(self) -> list[Client]:
        with self._store.reading() as connection:
            rows = connection.execute(select(submitting_client).order_by(submitting_client.c.name)).all()
        return [Client(row.name, row.added) for row in rows]

    def client(self, token: str) -> str | None:
        """Whose token it is. Compares with every one in constant time."""
        given, found = _hash(token), None
        with self._store.reading() as connection:
            for row in connection.execute(select(submitting_client)):
                if hmac.compare_digest(row.token, given):
                    found = row.name
        return found

    # ---- keys ----

    def every_key(self) -> list[Key]:
        columns = submitting_key.c
        counted = select(submitted.c.signer, func.count().label("records")).group_by(submitted.c.signer).subquery()
        query = select(columns.signer, columns.certificate, columns.forked, counted.c.records)
        with self._store.reading() as connection:
            rows = connection.execute(
                query.outerjoin(counted, counted.c.signer == columns.signer).order_by(columns.signer)
            ).all()
        return [Key(row.signer, row.certificate, row.records or 0, row.forked) for row in rows]

    def certificates(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """key id -> DER, of those that are known."""
        found: dict[bytes, bytes] = {}
        with self._store.reading() as connection:
            for part in parts(list(keys)):
                query = select(submitting_key.c.signer, submitting_key.c.certificate)
                rows = connection.execute(query.where(submitting_key.c.signer.in_(part)))
                found |= {row.signer: row.certificate for row in rows}
        return found

    def release(self, key: bytes) -> None:
        """Takes records of a key again that two agents used. Raises FixInput where nothing is wrong with it."""
        columns = submitting_key.c
        with self._store.writing() as connection:
            released = connection.execute(
                update(submitting_key).where(columns.signer == key, columns.forked.is_not(None)).values(forked=None)
            )
            if released.rowcount != 1:
                raise FixInput(f"key 0x{key.hex()} is not held: `scanseal node keys` shows which are")

    def held_keys(self) -> int:
        """How many keys are refused because two agents used them."""
        with self._store.reading() as connection:
            return connection.execute(
                select(func.count()).select_from(submitting_key).where(submitting_key.c.forked.is_not(None))
            ).scalar_one()

    # ---- records ----

    def held(self, key: bytes, first: int, last: int) -> dict[int, Placed]:
        """counter -> record, of a key's from `first` to `last`."""
        columns = submitted.c
        query = select(columns.counter, columns.record_id, columns.entry, columns.log_index)
        with self._store.reading() as connection:
            rows = connection.execute(query.where(columns.signer == key, columns.counter.between(first, last))).all()
        return {row.counter: Placed(row.record_id, row.entry, row.log_index) for row in rows}

    def by_id(self, record_id: bytes) -> Placed | None:
        """A record of this database, whoever signed it."""
        with self._store.reading() as connection:
            for table in (submitted, record):
                query = select(table.c.record_id, table.c.entry, table.c.log_index).where(table.c.record_id == record_id)
                row = connection.execute(query).one_or_none()
                if row is not None:
                    return Placed(row.record_id, row.entry, row.log_index)
        return None

    def accept(self, submissions: Sequence[Submission], now: int) -> list[list[Placed] | ScanSealError]:
        """Takes each submission whole, or says why not, in one durable write for all of them; `now` in microseconds since 1970.

        Refused are, with nothing of the submission taken: KeyForked (also for each one after that until `release`),
        OutOfOrder, NeedPermission for a key that signs in this database itself.
        """
        runs: dict[bytes, list[tuple[int, int]]] = {}
        for one in submissions:
            for key, offered in by_key(one.offered).items():
                runs.setdefault(key, []).append((offered[0].counter, offered[-1].counter))
        with self._store.writing() as connection:
            known = _Known(connection, runs)
            answers: list[list[Placed] | ScanSealError] = []
            for one in submissions:
                try:
                    answers.append(known.take(one, now))
                except (KeyForked, OutOfOrder, NeedPermission) as error:
                    answers.append(error)
            known.write()
        return answers


class _Known:
    """What a database knows of some keys, within one write."""

    def __init__(self, connection: Connection, runs: Mapping[bytes, Sequence[tuple[int, int]]]) -> None:
        """`runs`: key id -> (first, last) counter of each submission."""
        self._connection = connection
        self._chains = {key: KeyChain(key) for key in runs}
        self._places: dict[bytes, Placed] = {}
        self._rows: list[dict[str, Any]] = []
        self._certificates: dict[bytes, bytes] = {}
        self._noted: dict[bytes, bytes] = {}
        columns = submitting_key.c
        for part in parts(list(runs)):
            query = select(columns.signer, columns.certificate, columns.forked).where(columns.signer.in_(part))
            for row in connection.execute(query):
                self._certificates[row.signer] = row.certificate
                self._chains[row.signer].forked = row.forked
        self._known_keys = frozenset(self._certificates)
        # A key that was handed in before signs nothing that gets into the log from here (`SiteQueue`).
        self._own = frozenset(key for key in runs if key not in self._known_keys and self._signs_here(key))
        for key in self._known_keys:
            self._read(self._chains[key], runs[key])

    def _signs_here(self, key: bytes) -> bool:
        return self._connection.execute(select(record.c.number).where(record.c.signer == key).limit(1)).first() is not None

    def _read(self, chain: KeyChain, runs: Sequence[tuple[int, int]]) -> None:
        columns = submitted.c
        newest = select(columns.counter, columns.record_id).where(columns.signer == chain.signer)
        row = self._connection.execute(newest.order_by(columns.counter.desc()).limit(1)).one_or_none()
        if row is None:
            return
        chain.tail = (row.counter, row.record_id)
        for first, last in runs:
            if first > row.counter:
                continue
            query = select(columns.counter, columns.record_id, columns.entry, columns.log_index)
            found = query.where(columns.signer == chain.signer, columns.counter.between(first, last))
            for held in self._connection.execute(found):
                chain.held[held.counter] = held.entry
                self._places[held.entry] = Placed(held.record_id, held.entry, held.log_index)

    def take(self, submission: Submission, now: int) -> list[Placed]:
        keys = by_key(submission.offered)
        if own := self._own & keys.keys():
            raise NeedPermission(
                f"key 0x{min(own).hex()} signs at the node itself: two agents with one key cannot both go on, give one another"
            )
        grown: dict[bytes, KeyChain] = {}
        new = []
        for key, offered in keys.items():
            try:
                grown[key], fresh = self._chains[key].extended(offered)
            except KeyForked as error:
                self._hold(key, error.proof)
                raise
            new += fresh
        self._chains |= grown
        self._certificates |= submission.certificates
        for one in new:
            self._places[one.entry] = Placed(one.record_id, one.entry, None)
            self._rows.append(
                {
                    "client": submission.client,
                    "signer": one.signer,
                    "counter": one.counter,
                    "record_id": one.record_id,
                    "entry": one.entry,
                    "received": now,
                }
            )
        added = {one.entry for one in new}
        return [replace(self._places[one.entry], is_new=one.entry in added) for one in submission.offered]

    def _hold(self, key: bytes, proof: bytes) -> None:
        if self._chains[key].forked is None:
            self._chains[key].forked = self._noted[key] = proof

    def write(self) -> None:
        connection = self._connection
        columns = submitting_key.c
        fresh = [
            {"signer": key, "certificate": der}
            for key, der in self._certificates.items()
            if key not in self._known_keys and self._chains[key].tail is not None
        ]
        if fresh:
            connection.execute(insert(submitting_key), fresh)
        if self._rows:
            connection.execute(insert(submitted), self._rows)
        for key, proof in self._noted.items():
            connection.execute(update(submitting_key).where(columns.signer == key).values(forked=proof))


class SiteQueue:
    """All that waits for a database's log: what its site signed, what others handed in. `ledger.log.sequencing.Queue`.

    Records that the site signed with a key whose records were handed in stay out of the log: two agents have the key.
    `sequenced` is told of each record that was handed in how long it waited, in seconds; `clock` in seconds since 1970.
    """

    def __init__(
        self, store: Store, clock: Callable[[], float] | None = None, sequenced: Callable[[float], None] | None = None
    ) -> None:
        self._store, self._clock, self._sequenced = store, clock, sequenced
        self._received: dict[bytes, int] = {}

    def queued_entries(self, limit: int) -> list[bytes]:
        own = select(record.c.entry).where(record.c.log_index.is_(None), record.c.signer.not_in(_handed_in()))
        others = select(submitted.c.entry, submitted.c.received).where(submitted.c.log_index.is_(None))
        with self._store.reading() as connection:
            mine = connection.execute(own.order_by(record.c.number).limit(limit)).all()
            theirs = connection.execute(others.order_by(submitted.c.number).limit(limit)).all()
        # Of more than fits half and half, so that neither keeps the other waiting.
        share = max(limit // 2, limit - len(theirs))
        mine = mine[:share]
        theirs = theirs[: limit - len(mine)]
        self._received = {row.entry: row.received for row in theirs}
        return [row.entry for row in mine] + [row.entry for row in theirs]

    def next_index(self) -> int:
        with self._store.reading() as connection:
            last = [connection.execute(select(func.max(table.c.log_index))).scalar_one() for table in (record, submitted)]
        return max((one + 1 for one in last if one is not None), default=0)

    def note_indices(self, indices: Mapping[bytes, int]) -> None:
        with self._store.writing() as connection:
            keys = list(dict.fromkeys(entry[96:128] for entry in indices))
            handed_in = _in(connection, select(submitting_key.c.signer), submitting_key.c.signer, keys)
            _note(connection, submitted, {entry: at for entry, at in indices.items() if entry[96:128] in handed_in})
            _note(connection, record, {entry: at for entry, at in indices.items() if entry[96:128] not in handed_in})
        if self._sequenced is not None and self._clock is not None:
            now = self._clock()
            for entry in indices:
                if (since := self._received.pop(entry, None)) is not None:
                    self._sequenced(now - since / 1e6)

    def depth(self) -> int:
        """Up to `COUNT_TO` of each kind."""
        own = select(record.c.number).where(record.c.log_index.is_(None), record.c.signer.not_in(_handed_in()))
        others = select(submitted.c.number).where(submitted.c.log_index.is_(None))
        with self._store.reading() as connection:
            return sum(
                connection.execute(select(func.count()).select_from(query.limit(COUNT_TO).subquery())).scalar_one()
                for query in (own, others)
            )

    def contradicting(self) -> int:
        """How many of the site's own records stay out of the log, because another agent handed in records of their key."""
        query = select(func.count()).select_from(record)
        with self._store.reading() as connection:
            if connection.execute(select(submitting_key.c.signer).limit(1)).first() is None:
                return 0
            return connection.execute(query.where(record.c.log_index.is_(None), record.c.signer.in_(_handed_in()))).scalar_one()

    def oldest(self) -> int | None:
        """When the oldest record was handed in that is not in the log, microseconds since 1970."""
        query = select(submitted.c.received).where(submitted.c.log_index.is_(None)).order_by(submitted.c.number).limit(1)
        with self._store.reading() as connection:
            received: int | None = connection.execute(query).scalar_one_or_none()
        return received


def _handed_in() -> Any:
    return select(submitting_key.c.signer)


def _note(connection: Connection, table: Table, indices: Mapping[bytes, int]) -> None:
    if not indices:
        return
    columns = table.c
    found = (columns.signer == bindparam("by"), columns.counter == bindparam("slot"), columns.entry == bindparam("one"))
    connection.execute(
        update(table).where(*found).values(log_index=bindparam("at")),
        [
            {"by": entry[96:128], "slot": int.from_bytes(entry[128:160], "big"), "one": entry, "at": index}
            for entry, index in indices.items()
        ],
    )


def _in(connection: Connection, query: Any, column: Any, values: Sequence[bytes]) -> frozenset[bytes]:
    return frozenset(row[0] for part in parts(values) for row in connection.execute(query.where(column.in_(part))))


def _hash(token: str) -> bytes:
    # A token is 32 random bytes: one round of a fast hash keeps it as well as many of a slow one.
    return hashlib.sha256(token.encode()).digest()
