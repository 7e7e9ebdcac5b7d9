"""Erasing a study: what would open its records goes for good; roots, signatures and every other proof stay."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, text, update

from ledger.core.errors import TryLater
from ledger.store.leaving import take_back
from ledger.store.records import RecordReader, StoredRecord
from ledger.store.schema import record, study

_OPENING = ("image_key", "kept", "find", "pixels_token", "instance_token", "decoder", "tiles")


@dataclass(frozen=True)
class StudyRecords:
    """A study's records here, and the images of other studies that were made from them."""

    study: int
    record_ids: tuple[bytes, ...]
    derived: tuple[StoredRecord, ...]


class RedactionStore(RecordReader):
    """Finds and erases studies in a database."""

    def study(self, uid: str) -> StudyRecords | None:
        """A study by its StudyInstanceUID; None where there is none, or no more."""
        with self._store.reading() as connection:
            found = connection.execute(
                select(study.c.id).where(study.c.token == self._token("study", uid))
            ).scalar_one_or_none()
        return None if found is None else self._records_of(found)

    def studies_of(self, records: Sequence[StoredRecord]) -> list[StudyRecords]:
        """The studies that images belong to."""
        return [self._records_of(one) for one in sorted({stored.study for stored in records if stored.study is not None})]

    def redact(self, studies: Sequence[int]) -> None:
        """Erases the secrets of these studies and all that was made with them, all or none; then `forget`s."""
        with self._store.writing() as connection:
            for one in studies:
                take_back(connection, one)
                erased = dict.fromkeys(_OPENING)
                connection.execute(update(record).where(record.c.study == one).values(**erased))
                connection.execute(update(study).where(study.c.id == one).values(secret=None, token=secrets.token_bytes(32)))
        self.forget()

    def forget(self) -> None:
        """Has the database give up what it still keeps of erased values. Raises TryLater while another process reads it."""
        if self._store.engine.dialect.name != "sqlite":
            with self._store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM FULL record"))
                connection.execute(text("VACUUM FULL study"))
            return
        with self._store.engine.connect() as connection:
            driver = connection.connection.driver_connection
            busy = 1 if driver is None else driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            raise TryLater(
                "the study is erased, but another process still reads the database, whose journal keeps old pages: run the "
                "same command again when it is closed"
            )

    def _records_of(self, number: int) -> StudyRecords:
        with self._store.reading() as connection:
            rows = connection.execute(select(record.c.record_id).where(record.c.study == number))
            own = [bytes(row.record_id) for row in rows]
        derived: dict[bytes, StoredRecord] = {}
        ahead, seen = own, set(own)
        while ahead:
            followers = [one for one in self.following(ahead) if one.record_id not in seen]
            seen |= {one.record_id for one in followers}
            derived |= {one.record_id: one for one in followers if one.image_key is not None and one.study != number}
            ahead = [one.record_id for one in followers if one.leaves is None]
        return StudyRecords(number, tuple(own), tuple(derived.values()))
