"""Reading the records that a database holds: by image, by id, by what they follow."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, func, insert, or_, select

from ledger.core.content import Salts
from ledger.core.custody import Statement
from ledger.core.errors import NeedPermission, Stop
from ledger.core.evidence import Included, RecordEntry, RecordPart, Seal, Tiles
from ledger.core.records import TYPES, AcquisitionRecord, CustodyRecord, GatewayRecord, SignedRecord, SyntheticRecord
from ledger.core.strict import from_b64, to_b64
from ledger.register import Opening
from ledger.store.engine import Store
from ledger.store.schema import record, record_link, site_secret, study

LOOKUP_KEY: Final = "lookup key"
SQL_LIMIT: Final = 500
"""Values asked for with one query."""


@dataclass(frozen=True)
class StoredRecord:
    """A record as the site keeps it. `log_index` is None while it is queued; what belongs to an image is None for a record
    without one, and its keys for a redacted study."""

    number: int
    signed: SignedRecord
    record_id: bytes
    generator: str | None
    leaves: bytes | None
    image_key: bytes | None
    kept: bytes | None
    study: int | None
    find: bytes | None
    decoder: str | None
    tiles: bytes | None
    log_index: int | None

    @property
    def parents(self) -> tuple[bytes, ...]:
        value = self.signed.record
        return value.parents if isinstance(value, CustodyRecord) else ()

    def seal(self, study_index: int, included: Included | None, *, with_tiles: bool) -> Seal:
        """As evidence of an image at hand. Raises NeedPermission for an image whose study was redacted."""
        if self.image_key is None or self.leaves is None or self.find is None:
            raise NeedPermission(f"record {self.number}: its study was redacted, nothing can be shown of it any more")
        return Seal(
            record=RecordPart.of(self.signed.record),
            signature=self.signed.signature,
            leaves=self.leaves,
            image_key=self.image_key,
            kept=self.kept,
            study=study_index,
            find=self.find,
            decoder=self.decoder,
            included=included,
            tiles=Tiles.model_validate_json(self.tiles) if with_tiles and self.tiles else None,
        )

    def entry(self, leaves: bytes | None, included: Included | None) -> RecordEntry:
        """As evidence that opens nothing."""
        return RecordEntry(
            record=RecordPart.of(self.signed.record), signature=self.signed.signature, leaves=leaves, included=included
        )

    def opening(self, record_id: bytes, generator: str | None) -> Opening:
        """What opens this image, for the record `record_id` that commits to it. Raises NeedPermission."""
        if self.image_key is None or self.leaves is None:
            raise NeedPermission("the study of this image was redacted: nothing can be derived from it any more")
        value = self.signed.record
        changed = Statement.of(value).changed if isinstance(value, CustodyRecord) else ()
        salts = Salts.of_parts(self.image_key, self.kept, changed)
        leaves = tuple(self.leaves[start : start + 32] for start in range(0, len(self.leaves), 32))
        return Opening(record_id, value.content, value.profile, leaves, salts, generator)


class RecordReader:
    """What can be asked of the records of a database.

    The look-up tokens are keyed with a secret of this database, so that a copy of its index tells nothing about an image.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lookup_key: bytes | None = None

    # ---- by image ----

    def find(self, digests: Sequence[str], instance: str) -> list[StoredRecord]:
        """The records of an image, by its pixel digests or its SOP Instance UID."""
        if self._store.read_only and self._known_secret(LOOKUP_KEY) is None:
            return []
        tokens = [self._token("pixels", digest) for digest in digests]
        clauses: list[ColumnElement[bool]] = [record.c.pixels_token.in_(tokens)]
        if instance:
            clauses.append(record.c.instance_token == self._token("instance", instance))
        return self._records(select(record).where(or_(*clauses)).order_by(record.c.number))

    def synthetic(self, digests: Sequence[str]) -> Mapping[str, str]:
        """pixel digest -> generator, of those that are declared synthetic here."""
        with self._store.reading() as connection:
            if (
                connection.execute(select(record.c.number).where(record.c.generator.is_not(None)).limit(1)).one_or_none()
                is None
            ):
                return {}
        tokens = {self._token("pixels", digest): digest for digest in digests}
        found: dict[str, str] = {}
        for part in parts(list(tokens)):
            query = select(record.c.pixels_token, record.c.generator).where(
                record.c.pixels_token.in_(part), record.c.generator.is_not(None)
            )
            with self._store.reading() as connection:
                found |= {tokens[row.pixels_token]: row.generator for row in connection.execute(query)}
        return found

    def all_images(self, keys: Sequence[bytes] = ()) -> Iterator[StoredRecord]:
        """Every record with an image of its own, oldest first, in flat memory; of these keys only, where some are given."""
        last = 0
        while True:
            query = select(record).where(record.c.number > last, record.c.image_key.is_not(None))
            query = query.order_by(record.c.number).limit(SQL_LIMIT)
            rows = self._records(query.where(record.c.signer.in_(keys)) if keys else query)
            if not rows:
                return
            yield from rows
            last = rows[-1].number

    # ---- by id, and along custody ----

    def by_id(self, ids: Iterable[bytes]) -> dict[bytes, StoredRecord]:
        """record id -> record, of those that are here."""
        return self._by(record.c.record_id, ids, lambda stored: stored.record_id)

    def holding(self, contents: Iterable[bytes]) -> dict[bytes, StoredRecord]:
        """content -> the first record here that has the leaves of an image with it."""
        return self._by(record.c.content, contents, lambda stored: stored.signed.record.content, record.c.leaves.is_not(None))

    def with_content(self, value: bytes) -> list[StoredRecord]:
        """The records of any type with this content."""
        return self._records(select(record).where(record.c.content == value).order_by(record.c.number))

    def following(self, ids: Iterable[bytes]) -> list[StoredRecord]:
        """The records that name one of these: as a parent, or as what they approve."""
        found: dict[int, StoredRecord] = {}
        for part in parts(list(ids)):
            numbers = select(record_link.c.number).where(record_link.c.target.in_(part))
            found |= {stored.number: stored for stored in self._records(select(record).where(record.c.number.in_(numbers)))}
        return [found[number] for number in sorted(found)]

    def ancestors(self, stored: Iterable[StoredRecord]) -> dict[bytes, StoredRecord]:
        """The records that these were made from, and theirs. Raises Stop where one is missing: the store is damaged."""
        found: dict[bytes, StoredRecord] = {}
        wanted = {parent for one in stored for parent in one.parents}
        while wanted:
            fresh = self.by_id(wanted)
            if len(fresh) != len(wanted):
                raise Stop("the store lacks a record that another one names as its parent")
            found |= fresh
            wanted = {parent for one in fresh.values() for parent in one.parents} - found.keys()
        return found

    def opening(self, stored: StoredRecord) -> Opening:
        """What opens the image of a record, whoever's record has its leaves. Raises NeedPermission, Stop."""
        holder = (
            stored
            if stored.leaves is not None
            else self.holding([stored.signed.record.content]).get(stored.signed.record.content)
        )
        if holder is None:
            raise Stop("the store lacks the leaves of a record's image")
        return holder.opening(stored.record_id, stored.generator)

    # ---- counts and keys ----

    def tail(self, key: bytes) -> tuple[int, bytes] | None:
        """The (counter, record id) of a key's newest record."""
        newest = select(record.c.counter, record.c.record_id).where(record.c.signer == key)
        with self._store.reading() as connection:
            row = connection.execute(newest.order_by(record.c.counter.desc()).limit(1)).one_or_none()
        return None if row is None else (row.counter, row.record_id)

    def originals(self, key: bytes, first: int, last: int) -> list[int]:
        """The counters from first to last with which a key signed an image that was made of no other, redacted ones too."""
        types = [AcquisitionRecord.TYPE, SyntheticRecord.TYPE, GatewayRecord.TYPE]
        query = select(record.c.counter).where(record.c.signer == key, record.c.counter.between(first, last))
        with self._store.reading() as connection:
            return list(connection.execute(query.where(record.c.type.in_(types)).order_by(record.c.counter)).scalars())

    def profiles(self) -> list[str]:
        """The digest profiles that were ever sealed with here, so that a look-up knows what to compute."""
        query = select(record.c.profile).where(record.c.leaves.is_not(None)).distinct()
        with self._store.reading() as connection:
            return [row[0].partition("/")[0] for row in connection.execute(query)]

    def study_secret(self, study_id: int) -> bytes:
        """Raises NeedPermission for a redacted study."""
        with self._store.reading() as connection:
            secret = connection.execute(select(study.c.secret).where(study.c.id == study_id)).scalar_one()
        if secret is None:
            raise NeedPermission("the study was redacted, nothing can be shown of it any more")
        return bytes(secret)

    def counts(self) -> tuple[int, int]:
        """(records, of them queued)."""
        with self._store.reading() as connection:
            total = connection.execute(select(func.count()).select_from(record)).scalar_one()
            queued = connection.execute(select(func.count()).where(record.c.log_index.is_(None))).scalar_one()
        return total, queued

    def unanchored_of(self, key: bytes, final_size: int) -> int:
        """How many records of a key are not in the log's first `final_size` ones."""
        waiting = or_(record.c.log_index.is_(None), record.c.log_index >= final_size)
        with self._store.reading() as connection:
            return connection.execute(select(func.count()).where(waiting, record.c.signer == key)).scalar_one()

    def _by(self, column: Any, values: Iterable[bytes], key: Any, *where: ColumnElement[bool]) -> dict[bytes, StoredRecord]:
        found: dict[bytes, StoredRecord] = {}
        for part in parts(list(values)):
            query = select(record).where(column.in_(part), *where).order_by(record.c.number.desc())
            found |= {key(stored): stored for stored in self._records(query)}
        return found

    def _records(self, query: Any) -> list[StoredRecord]:
        with self._store.reading() as connection:
            return [_stored(row) for row in connection.execute(query)]

    def _token(self, kind: str, value: str) -> bytes:
        if self._lookup_key is None:
            self._lookup_key = self.secret(LOOKUP_KEY)
        return hmac.digest(self._lookup_key, f"{kind}\0{value}".encode(), "sha256")

    def secret(self, name: str) -> bytes:
        """A secret of this site, 32 bytes, made and made durable where it is new."""
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


def parts(values: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """The values in as many as one query takes."""
    return (values[start : start + SQL_LIMIT] for start in range(0, len(values), SQL_LIMIT))


def own_text(own: Mapping[str, Any]) -> str | None:
    """A type's own members as the store keeps them."""
    if not own:
        return None
    plain = {name: [to_b64(one) for one in value] if isinstance(value, tuple) else value for name, value in own.items()}
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def _own(text: str | None) -> dict[str, Any]:
    own = json.loads(text) if text else {}
    return {name: tuple(from_b64(one) for one in value) if isinstance(value, list) else value for name, value in own.items()}


def _secret_named(name: str) -> Select[Any]:
    return select(site_secret.c.value).where(site_secret.c.name == name)


def _stored(row: Row[Any]) -> StoredRecord:
    return StoredRecord(
        row.number,
        SignedRecord(TYPES[row.type].from_entry(row.entry, row.profile, _own(row.own)), row.entry[-64:]),
        row.record_id,
        row.generator,
        row.leaves,
        row.image_key,
        row.kept,
        row.study,
        row.find,
        row.decoder,
        row.tiles,
        row.log_index,
    )
