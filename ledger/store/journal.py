"""The device's journal in the database: `ledger.register.Journal`, and finding seals again."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from ledger.core.errors import NeedPermission, Stop, TryLater
from ledger.core.evidence import Included, RecordPart, Seal, Tiles
from ledger.core.records import AcquisitionRecord, SignedRecord
from ledger.register import Sealed
from ledger.store.engine import Store
from ledger.store.schema import seal, site_secret, study

LOOKUP_KEY: Final = "lookup key"
_SQL_LIMIT: Final = 500
"""Values asked for with one query."""


@dataclass(frozen=True)
class StoredSeal:
    """A seal as the site keeps it. `log_index` is None while it is queued."""

    number: int
    signed: SignedRecord
    record_id: bytes
    leaves: bytes
    image_key: bytes | None
    study: int
    find: bytes
    decoder: str | None
    tiles: bytes | None
    log_index: int | None

    def part(self, study_index: int, included: Included | None, *, with_tiles: bool) -> Seal:
        """As evidence. Raises NeedPermission for an image whose study was redacted."""
        if self.image_key is None:
            raise NeedPermission(f"seal {self.number}: its study was redacted, nothing can be shown of it any more")
        record = self.signed.record
        return Seal(
            record=RecordPart.of(record),
            signature=self.signed.signature,
            leaves=self.leaves,
            image_key=self.image_key,
            study=study_index,
            find=self.find,
            decoder=self.decoder,
            included=included,
            tiles=Tiles.model_validate_json(self.tiles) if with_tiles and self.tiles else None,
        )


class JournalStore:
    """The journal that this database holds. Duties: `ledger.register.Journal`.

    The look-up tokens are keyed with a secret of this database, so that a copy of its index tells nothing about an image.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lookup_key: bytes | None = None

    # ---- sealing ----

    def study_secrets(self, studies: Sequence[str]) -> Mapping[str, bytes]:
        wanted = {self._token("study", uid): uid for uid in dict.fromkeys(studies)}
        with self._store.reading() as connection:
            found = _studies(connection, wanted)
        missing = [token for token in wanted if token not in found]
        if missing:
            with self._store.writing() as connection:
                found |= _studies(connection, missing)
                fresh = [{"token": token, "secret": secrets.token_bytes(32)} for token in missing if token not in found]
                if fresh:
                    connection.execute(insert(study), fresh)
                    found |= {row["token"]: row["secret"] for row in fresh}
        redacted = [token for token, secret in found.items() if secret is None]
        if redacted:
            raise NeedPermission(f"{len(redacted)} of these studies were redacted: their images are not sealed again")
        return {uid: found[token] for token, uid in wanted.items()}

    def tail(self, key: bytes) -> tuple[int, bytes] | None:
        newest = select(seal.c.counter, seal.c.record_id).where(seal.c.signer == key).order_by(seal.c.counter.desc()).limit(1)
        with self._store.reading() as connection:
            row = connection.execute(newest).one_or_none()
        return None if row is None else (row.counter, row.record_id)

    def by_content(self, key: bytes, contents: Sequence[bytes]) -> Mapping[bytes, tuple[int, bytes]]:
        known: dict[bytes, tuple[int, bytes]] = {}
        columns = seal.c
        with self._store.reading() as connection:
            for part in _parts(contents):
                rows = connection.execute(
                    select(columns.content, columns.counter, columns.record_id).where(
                        columns.signer == key, columns.content.in_(part)
                    )
                )
                known.update({row.content: (row.counter, row.record_id) for row in rows})
        return known

    def append(self, sealed: Sequence[Sealed]) -> None:
        with self._store.writing() as connection:
            ids = self._study_ids(connection, {one.study for one in sealed})
            key = sealed[0].signed.record.key
            last = connection.execute(select(func.max(seal.c.counter)).where(seal.c.signer == key)).scalar_one()
            first = sealed[0].signed.record.counter
            if first != (0 if last is None else last + 1):
                raise TryLater("another process sealed with this key at the same moment: seal again")
            try:
                connection.execute(insert(seal), [self._row(one, ids[one.study]) for one in sealed])
            except IntegrityError as error:
                raise TryLater("another process sealed with this key at the same moment: seal again") from error

    def _study_ids(self, connection: Connection, uids: set[str]) -> dict[str, int]:
        tokens = {self._token("study", uid): uid for uid in uids}
        ids: dict[str, int] = {}
        for part in _parts(list(tokens)):
            for row in connection.execute(select(study.c.id, study.c.token).where(study.c.token.in_(part))):
                ids[tokens[row.token]] = row.id
        if len(ids) != len(uids):
            raise Stop("a study of these seals is not in the store")
        return ids

    def _row(self, one: Sealed, study_id: int) -> dict[str, Any]:
        record = one.signed.record
        return {
            "signer": record.key,
            "counter": record.counter,
            "record_id": one.record_id,
            "content": record.content,
            "profile": record.profile,
            "entry": one.signed.entry(),
            "leaves": b"".join(one.leaves),
            "image_key": one.image_key,
            "study": study_id,
            "find": one.find,
            "pixels_token": self._token("pixels", str(one.digest)),
            "instance_token": self._token("instance", one.instance) if one.instance else None,
            "decoder": one.decoder,
            "tiles": Tiles.of(one.digest).model_dump_json().encode() if one.digest.header else None,
        }

    # ---- the way into the log ----

    def queued_entries(self, limit: int) -> list[bytes]:
        query = select(seal.c.entry).where(seal.c.log_index.is_(None)).order_by(seal.c.number).limit(limit)
        with self._store.reading() as connection:
            return [bytes(row.entry) for row in connection.execute(query)]

    def note_indices(self, indices: Mapping[bytes, int]) -> None:
        with self._store.writing() as connection:
            connection.execute(
                update(seal)
                .where(seal.c.signer == bindparam("by"), seal.c.counter == bindparam("slot"), seal.c.entry == bindparam("one"))
                .values(log_index=bindparam("at")),
                [
                    {"by": entry[96:128], "slot": int.from_bytes(entry[128:160], "big"), "one": entry, "at": index}
                    for entry, index in indices.items()
                ],
            )

    def next_index(self) -> int:
        """One more than the highest log index noted."""
        with self._store.reading() as connection:
            last = connection.execute(select(func.max(seal.c.log_index))).scalar_one()
        return 0 if last is None else int(last) + 1

    # ---- finding ----

    def find(self, digests: Sequence[str], instance: str) -> list[StoredSeal]:
        """The seals of an image, by its pixel digests or its SOP Instance UID."""
        if self._store.read_only and self._known_secret(LOOKUP_KEY) is None:
            return []
        tokens = [self._token("pixels", digest) for digest in digests]
        clauses: list[ColumnElement[bool]] = [seal.c.pixels_token.in_(tokens)]
        if instance:
            clauses.append(seal.c.instance_token == self._token("instance", instance))
        return self._seals(select(seal).where(or_(*clauses)).order_by(seal.c.number))

    def all_seals(self, keys: Sequence[bytes] = ()) -> Iterator[StoredSeal]:
        """Every seal, oldest first, in flat memory; of these keys only, where some are given."""
        last = 0
        while True:
            query = select(seal).where(seal.c.number > last).order_by(seal.c.number).limit(_SQL_LIMIT)
            rows = self._seals(query.where(seal.c.signer.in_(keys)) if keys else query)
            if not rows:
                return
            yield from rows
            last = rows[-1].number

    def profiles(self) -> list[str]:
        """The digest profiles that were ever sealed with here, so that a look-up knows what to compute."""
        with self._store.reading() as connection:
            return [row[0].partition("/")[0] for row in connection.execute(select(seal.c.profile).distinct())]

    def study_secret(self, study_id: int) -> bytes:
        """Raises NeedPermission for a redacted study."""
        with self._store.reading() as connection:
            secret = connection.execute(select(study.c.secret).where(study.c.id == study_id)).scalar_one()
        if secret is None:
            raise NeedPermission("the study was redacted, nothing can be shown of it any more")
        return bytes(secret)

    def counts(self) -> tuple[int, int]:
        """(seals, of them queued)."""
        with self._store.reading() as connection:
            total = connection.execute(select(func.count()).select_from(seal)).scalar_one()
            queued = connection.execute(select(func.count()).where(seal.c.log_index.is_(None))).scalar_one()
        return total, queued

    def unanchored_of(self, key: bytes, final_size: int) -> int:
        """How many seals of a key are not in the log's first `final_size` records."""
        waiting = or_(seal.c.log_index.is_(None), seal.c.log_index >= final_size)
        with self._store.reading() as connection:
            return connection.execute(select(func.count()).where(waiting, seal.c.signer == key)).scalar_one()

    def _seals(self, query: Any) -> list[StoredSeal]:
        with self._store.reading() as connection:
            return [_stored(row) for row in connection.execute(query)]

    def _token(self, kind: str, value: str) -> bytes:
        if self._lookup_key is None:
            self._lookup_key = self._secret(LOOKUP_KEY)
        return hmac.digest(self._lookup_key, f"{kind}\0{value}".encode(), "sha256")

    def _secret(self, name: str) -> bytes:
        known = self._known_secret(name)
        if known is None:
            fresh = secrets.token_bytes(32)
            with self._store.writing() as connection:
                if connection.execute(_secret_named(name)).scalar_one_or_none() is None:
                    connection.execute(insert(site_secret).values(name=name, value=fresh))
            known = self._known_secret(name)
        if known is None:
            raise Stop(f"the store does not keep its {name}")
        return known

    def _known_secret(self, name: str) -> bytes | None:
        with self._store.reading() as connection:
            known = connection.execute(_secret_named(name)).scalar_one_or_none()
        return None if known is None else bytes(known)


def _secret_named(name: str) -> Select[Any]:
    return select(site_secret.c.value).where(site_secret.c.name == name)


def _studies(connection: Connection, tokens: Any) -> dict[bytes, Any]:
    found: dict[bytes, Any] = {}
    for part in _parts(list(tokens)):
        rows = connection.execute(select(study.c.token, study.c.secret).where(study.c.token.in_(part)))
        found.update({row.token: row.secret for row in rows})
    return found


def _parts(values: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    return (values[start : start + _SQL_LIMIT] for start in range(0, len(values), _SQL_LIMIT))


def _stored(row: Row[Any]) -> StoredSeal:
    return StoredSeal(
        row.number,
        SignedRecord(AcquisitionRecord.from_entry(row.entry, row.profile), row.entry[-64:]),
        row.record_id,
        row.leaves,
        row.image_key,
        row.study,
        row.find,
        row.decoder,
        row.tiles,
        row.log_index,
    )
