"""The signer's journal in the database: `ledger.register.Journal`, and the way from there into the log."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from ledger.core.errors import NeedPermission, Stop, TryLater
from ledger.core.evidence import Tiles
from ledger.core.records import Approval, CustodyRecord, Record
from ledger.register import NOTHING, Sealed, Stated
from ledger.store.engine import Store
from ledger.store.records import RecordReader, own_text, parts
from ledger.store.schema import barred_key, record, record_link, study


class JournalStore(RecordReader):
    """The journal that this database holds. Duties: `ledger.register.Journal`.

    `deposits`: the evidence of what is sealed is to be left with the site's node (`ledger.store.leaving`).
    """

    def __init__(self, store: Store, *, deposits: bool = False) -> None:
        super().__init__(store)
        self._deposits = deposits

    def study_secrets(self, studies: Sequence[str]) -> Mapping[str, bytes]:
        wanted = {self._token("study", uid): uid for uid in dict.fromkeys(studies)}
        with self._store.reading() as connection:
            found = _secrets(connection, wanted)
        missing = [token for token in wanted if token not in found]
        if missing:
            with self._store.writing() as connection:
                found |= _secrets(connection, missing)
                fresh = [{"token": token, "secret": secrets.token_bytes(32)} for token in missing if token not in found]
                if fresh:
                    connection.execute(insert(study), fresh)
                    found |= {row["token"]: row["secret"] for row in fresh}
        redacted = [token for token, secret in found.items() if secret is None]
        if redacted:
            raise NeedPermission(f"{len(redacted)} of these studies were redacted: their images are not sealed again")
        return {uid: found[token] for token, uid in wanted.items()}

    def by_content(
        self, key: bytes, type_name: str, contents: Sequence[bytes], own: Mapping[str, Any] = NOTHING
    ) -> Mapping[bytes, tuple[int, bytes]]:
        known: dict[bytes, tuple[int, bytes]] = {}
        columns = record.c
        text = own_text(own)
        with self._store.reading() as connection:
            for part in parts(contents):
                rows = connection.execute(
                    select(columns.content, columns.counter, columns.record_id).where(
                        columns.signer == key,
                        columns.type == type_name,
                        columns.leaves.is_not(None),
                        columns.own.is_(None) if text is None else columns.own == text,
                        columns.content.in_(part),
                    )
                )
                known.update({row.content: (row.counter, row.record_id) for row in rows})
        return known

    def append(self, records: Sequence[Sealed | Stated]) -> None:
        with self._store.writing() as connection:
            why = connection.execute(
                select(barred_key.c.why).where(barred_key.c.signer == records[0].signed.record.key)
            ).scalar_one_or_none()
            if why is not None:
                raise NeedPermission(f"this key signs nothing more from here: {why}")
            ids = self._study_ids(connection, {one.study for one in records if isinstance(one, Sealed)})
            first = records[0].signed.record
            last = connection.execute(select(func.max(record.c.counter)).where(record.c.signer == first.key)).scalar_one()
            if first.counter != (0 if last is None else last + 1):
                raise TryLater("another process signed with this key at the same moment: try again")
            try:
                connection.execute(insert(record), [self._row(one, ids) for one in records])
            except IntegrityError as error:
                raise TryLater("another process signed with this key at the same moment: try again") from error
            links = {one.record_id: _targets(one.signed.record) for one in records}
            if any(links.values()):
                _link(connection, links)

    def _study_ids(self, connection: Connection, uids: set[str]) -> dict[str, int]:
        tokens = {self._token("study", uid): uid for uid in uids}
        ids: dict[str, int] = {}
        for part in parts(list(tokens)):
            for row in connection.execute(select(study.c.id, study.c.token).where(study.c.token.in_(part))):
                ids[tokens[row.token]] = row.id
        if len(ids) != len(uids):
            raise Stop("a study of these images is not in the store")
        return ids

    def _row(self, one: Sealed | Stated, studies: Mapping[str, int]) -> dict[str, Any]:
        value = one.signed.record
        row: dict[str, Any] = {
            "type": value.TYPE,
            "signer": value.key,
            "counter": value.counter,
            "record_id": one.record_id,
            "content": value.content,
            "profile": value.profile,
            "own": own_text(value.own),
            "entry": one.signed.entry(),
            "generator": one.generator,
        }
        if isinstance(one, Stated):
            return row
        return row | {
            "leaves": b"".join(one.leaves),
            "image_key": one.image_key,
            "kept": one.kept,
            "study": studies[one.study],
            "find": one.find,
            "pixels_token": self._token("pixels", str(one.digest)),
            "instance_token": self._token("instance", one.instance) if one.instance else None,
            "decoder": one.decoder,
            "tiles": Tiles.of(one.digest).model_dump_json().encode() if one.digest.header else None,
            "deposit": one.deposit if self._deposits else None,
            "deposited": 0 if self._deposits and one.deposit is not None else None,
        }

    # ---- keys that sign no more from here ----

    def barred(self) -> dict[bytes, str]:
        """key id -> why, of the keys with which `append` refuses to write."""
        with self._store.reading() as connection:
            return {row.signer: row.why for row in connection.execute(select(barred_key))}

    def bar(self, keys: Iterable[bytes], why: str) -> None:
        """Refuses records of these keys from now on; for those that were barred before the reason stays."""
        with self._store.writing() as connection:
            known = set(connection.execute(select(barred_key.c.signer)).scalars())
            rows = [{"signer": key, "why": why} for key in set(keys) - known]
            if rows:
                connection.execute(insert(barred_key), rows)

    def unbar(self, why: str) -> None:
        """Takes back what `bar` did for this reason."""
        with self._store.writing() as connection:
            connection.execute(delete(barred_key).where(barred_key.c.why == why))

    def signers(self) -> dict[bytes, int]:
        """key id -> the counter of its newest record here."""
        query = select(record.c.signer, func.max(record.c.counter).label("newest")).group_by(record.c.signer)
        with self._store.reading() as connection:
            return {row.signer: row.newest for row in connection.execute(query)}

    # ---- the way into the log ----

    def queued_entries(self, limit: int, without: Collection[bytes] = ()) -> list[bytes]:
        """The oldest that have no log index yet, but those of the keys `without`."""
        query = select(record.c.entry).where(record.c.log_index.is_(None)).order_by(record.c.number).limit(limit)
        if without:
            query = query.where(record.c.signer.not_in(list(without)))
        with self._store.reading() as connection:
            return [bytes(row.entry) for row in connection.execute(query)]

    def entries_of(self, key: bytes, first: int, last: int) -> list[bytes]:
        """The log entries that a key signed, by counter, both ends included."""
        query = select(record.c.entry).where(record.c.signer == key, record.c.counter.between(first, last))
        with self._store.reading() as connection:
            return [bytes(row.entry) for row in connection.execute(query.order_by(record.c.counter))]

    def depth(self) -> int:
        return self.counts()[1]

    def note_indices(self, indices: Mapping[bytes, int]) -> None:
        columns = record.c
        with self._store.writing() as connection:
            connection.execute(
                update(record)
                .where(
                    columns.signer == bindparam("by"),
                    columns.counter == bindparam("slot"),
                    columns.entry == bindparam("one"),
                    # The first place stays, where a log that was put back from a copy has an entry twice.
                    columns.log_index.is_(None),
                )
                .values(log_index=bindparam("at")),
                [
                    {"by": entry[96:128], "slot": int.from_bytes(entry[128:160], "big"), "one": entry, "at": index}
                    for entry, index in indices.items()
                ],
            )

    def next_index(self) -> int:
        """One more than the highest log index noted."""
        with self._store.reading() as connection:
            last = connection.execute(select(func.max(record.c.log_index))).scalar_one()
        return 0 if last is None else int(last) + 1


def _targets(value: Record) -> tuple[bytes, ...]:
    """What a record follows: its parents, or what it approves."""
    if isinstance(value, CustodyRecord):
        return value.parents
    return (value.content,) if isinstance(value, Approval) else ()


def _link(connection: Connection, links: Mapping[bytes, tuple[bytes, ...]]) -> None:
    numbers: dict[bytes, int] = {}
    for part in parts([record_id for record_id, targets in links.items() if targets]):
        rows = connection.execute(select(record.c.number, record.c.record_id).where(record.c.record_id.in_(part)))
        numbers |= {row.record_id: row.number for row in rows}
    connection.execute(
        insert(record_link),
        [{"number": numbers[record_id], "target": one} for record_id, targets in links.items() for one in targets],
    )


def _secrets(connection: Connection, tokens: Any) -> dict[bytes, Any]:
    found: dict[bytes, Any] = {}
    for part in parts(list(tokens)):
        rows = connection.execute(select(study.c.token, study.c.secret).where(study.c.token.in_(part)))
        found.update({row.token: row.secret for row in rows})
    return found
