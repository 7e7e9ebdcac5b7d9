"""Taking manifests in, and what is worked out of all of them when every image was seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Select, and_, delete, func, insert, select, update

from ledger.audit.workbook import PROVEN, Source, Span
from ledger.core.errors import EvidenceInvalid
from ledger.core.manifest import Account, Entry, Header
from ledger.store.audit.rows import u64
from ledger.store.audit.schema import account, entry, explained, image, image_step, manifest

PAGE: Final = 500


def batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for one in [*items] if isinstance(items, dict) else items:
        batch.append(one)
        if len(batch) == PAGE:
            yield batch
            batch = []
    if batch:
        yield batch


def take(connection: Connection, number: int, source: Source) -> None:
    """Takes a manifest in under a number. Raises EvidenceInvalid naming the lines of what is listed twice."""
    header = source.reader.header
    connection.execute(insert(manifest).values(number=number, name=source.name, kind=header.kind, find_key=header.find_key))
    for one in header.accounts:
        _take_account(connection, one, header)
    if source.slot is not None:
        _take_others(connection, source.slot.key, [source.slot.counter])
    lists = int(header.kind != "heartbeat")
    for batch in batches(enumerate(source.reader, 2)):
        _refuse_repeated(connection, number, batch, source.name)
        connection.execute(insert(entry), [_entry_row(number, line, lists, one) for line, one in batch])
    _refuse_contradictions(connection, number, source.name)
    if source.reader.digest != source.digest:
        raise EvidenceInvalid(f"{source.name}: the file was changed while it was read", "manifest")


LISTED, OTHER, MADE = 0, 1, 2
"""Why a counter is explained: by a listed image, as no image of the trial (an account's `others`, a list's own record), by a
heartbeat's image."""


def _take_account(connection: Connection, one: Account, header: Header) -> None:
    span = Span.of(one, header.subject, header.visit)
    connection.execute(
        insert(account).values(key=one.key, first=u64(span.first), last=u64(span.last), subject=span.subject, visit=span.visit)
    )
    _take_others(connection, one.key, one.others)


def _take_others(connection: Connection, key: bytes, counters: Sequence[int]) -> None:
    for batch in batches(counters):
        rows = [{"key": key, "counter": u64(counter), "is_other": OTHER} for counter in batch]
        connection.execute(insert(explained).prefix_with("OR IGNORE"), rows)


def _entry_row(number: int, line: int, lists: int, one: Entry) -> dict[str, Any]:
    pixels, instance = one.tokens
    return {
        "manifest": number,
        "line": line,
        "lists": lists,
        "record": one.record,
        "pixels": pixels or None,
        "instance": instance or None,
        "subject": one.subject,
        "visit": one.visit,
        "status": one.status,
        "evidence": one.evidence,
        "origin_key": one.origin.key if one.origin else None,
        "origin_counter": u64(one.origin.counter) if one.origin else None,
        "reason": one.reason,
    }


def _refuse_repeated(connection: Connection, number: int, batch: Sequence[tuple[int, Entry]], name: str) -> None:
    """Raises EvidenceInvalid where a record of the batch was listed before."""
    records = [one.record for _, one in batch if one.record is not None]
    query = select(entry.c.record, entry.c.line).where(entry.c.manifest == number, entry.c.record.in_(records))
    before: dict[bytes, int] = {row.record: row.line for row in connection.execute(query)}
    for line, one in batch:
        if one.record is not None and before.setdefault(one.record, line) != line:
            raise EvidenceInvalid(f"{name}: line {line} lists the record of line {before[one.record]} again", "manifest")


def _refuse_contradictions(connection: Connection, number: int, name: str) -> None:
    """Raises EvidenceInvalid where a visit without images is listed twice, or has images."""
    none = select(entry.c.subject, entry.c.visit).where(entry.c.manifest == number, entry.c.status == "none").subquery()
    query = (
        select(func.min(entry.c.line), func.max(entry.c.line))
        .select_from(entry.join(none, and_(entry.c.subject == none.c.subject, entry.c.visit == none.c.visit)))
        .where(entry.c.manifest == number)
        .group_by(entry.c.subject, entry.c.visit)
        .having(func.count() > 1)
        .limit(1)
    )
    found = connection.execute(query).one_or_none()
    if found is not None:
        raise EvidenceInvalid(
            f"{name}: lines {found[0]} and {found[1]} are of one visit, of which one says: no images", "manifest"
        )


def forget(connection: Connection, numbers: Select[tuple[int]]) -> None:
    connection.execute(delete(image_step).where(image_step.c.image.in_(numbers)))
    connection.execute(delete(image).where(image.c.number.in_(numbers)))


def number_copies(connection: Connection) -> None:
    """Of several files that are one listed image the surest is it, of equals the first by path; the others are copies."""
    connection.execute(update(image).where(image.c.copy != 0).values(copy=0))
    several = select(image.c.listed).where(image.c.listed.is_not(None)).group_by(image.c.listed).having(func.count() > 1)
    place = func.row_number().over(partition_by=image.c.listed, order_by=(image.c.how, image.c.path))
    ranked = select(image.c.number, (place - 1).label("place")).where(image.c.listed.in_(several)).subquery()
    connection.execute(update(image).where(image.c.number == ranked.c.number).values(copy=ranked.c.place))


def explain(connection: Connection) -> None:
    """Notes every origin: the proven one of an image that is there and in order, else what the entry says."""
    connection.execute(delete(explained).where(explained.c.is_other != OTHER))
    proven = and_(image.c.listed == entry.c.record, image.c.how == PROVEN, image.c.copy == 0, entry.c.lists == 1)
    origins = (
        select(
            func.coalesce(image.c.origin_key, entry.c.origin_key),
            func.coalesce(image.c.origin_counter, entry.c.origin_counter),
            (1 - entry.c.lists) * MADE,
        )
        .select_from(entry.outerjoin(image, proven))
        .where(entry.c.record.is_not(None))
    )
    target = insert(explained).prefix_with("OR IGNORE")
    connection.execute(target.from_select(["key", "counter", "is_other"], origins))
