"""An audit's workbook: what was listed and what was found, in a SQLite file of its own, so that a run of any length takes
little memory and goes on where it was interrupted. Duties: `ledger.audit.workbook.Book`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Select, and_, bindparam, delete, func, insert, or_, select, tuple_, update

from ledger.audit.result import Row, RowStatus
from ledger.audit.workbook import MAIN, PROVEN, Examined, Listed, Origin, Sighting, Source, Span, VisitCount
from ledger.core.errors import FixInput
from ledger.core.verdict import CustodyStep
from ledger.store.audit import loading, opening, rows
from ledger.store.audit.loading import LISTED, PAGE, batches
from ledger.store.audit.schema import account, entry, explained, image, image_step, manifest, meta, step

_CANDIDATES: Final = 8
"""Listed images that one look-up gives: where thousands have the same pixels, a few of them."""
_STEPS: Final = 1000
"""Different steps of custody that are told apart by what is said of them; more are told apart by who did what."""
_NOTE: Final = "note "

_LIKELY: Final = select(entry).where(entry.c.lists == 1).limit(_CANDIDATES)
_IS_INSTANCE: Final = entry.c.instance.in_(bindparam("instances", expanding=True))
_HAS_PIXELS: Final = entry.c.pixels.in_(bindparam("pixels", expanding=True))
_SAME_BOTH, _SAME_INSTANCE, _SAME_PIXELS = (
    _LIKELY.where(_IS_INSTANCE, _HAS_PIXELS),
    _LIKELY.where(_IS_INSTANCE),
    _LIKELY.where(_HAS_PIXELS),
)


class Workbook:
    """One audit's workbook, and nobody else's while it is open. All or nothing of each call is on disk when it returns.

    Raises FixInput for a file that is none or another version's, NeedPermission where it cannot be written, and TryLater where
    another process has it open or the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.is_dir() or not path.parent.is_dir():
            raise FixInput(f"{path} is not a place for an audit's workbook: name a file in a folder that exists")
        self._store = opening.open_file(path)
        self._run = 0
        self._steps: dict[tuple[str, ...], int] = {}
        try:
            with self._store.writing() as connection:
                opening.prepare(connection, path)
                self._next = (connection.execute(select(func.max(image.c.number))).scalar_one() or 0) + 1
                for number, *key in connection.execute(select(step)):
                    self._steps[tuple(key)] = number
        except BaseException:
            self._store.close()
            raise

    def close(self) -> None:
        self._store.close()

    # ---- what is audited ----

    def begin(self, identity: str, started: int) -> tuple[bool, int]:
        with self._store.writing() as connection:
            known = {row.name: row.value for row in connection.execute(select(meta))}
            if "identity" not in known:
                known |= {"identity": identity, "started": str(started)}
            if known["identity"] != identity:
                raise FixInput(
                    f"{self._path.name} is the workbook of another audit (another manifest, trust file or policy): give this "
                    "one a file of its own, or remove it"
                )
            self._run = int(known.get("run", "0")) + 1
            _keep(connection, {name: known[name] for name in ("identity", "started")} | {"run": str(self._run)})
            return "loaded" in known, int(known["started"])

    @property
    def started(self) -> int:
        """When the first run began. Raises FixInput where none did."""
        with self._store.reading() as connection:
            started = connection.execute(select(meta.c.value).where(meta.c.name == "started")).scalar_one_or_none()
        if started is None:
            raise FixInput(f"{self._path}: no audit was run in this workbook yet")
        return int(started)

    def note(self, name: str, value: str) -> None:
        """Keeps a value under a name, in place of an older one."""
        with self._store.writing() as connection:
            _keep(connection, {_NOTE + name: value})

    def noted(self, name: str) -> str | None:
        with self._store.reading() as connection:
            value: str | None = connection.execute(select(meta.c.value).where(meta.c.name == _NOTE + name)).scalar_one_or_none()
        return value

    def load(self, sources: Iterable[Source]) -> None:
        with self._store.writing() as connection:
            for table in (manifest, account, explained, entry):
                connection.execute(delete(table))
            for number, source in enumerate(sources, MAIN):
                loading.take(connection, number, source)
            _keep(connection, {"loaded": "1"})

    def find_keys(self) -> list[bytes]:
        query = select(manifest.c.find_key).where(manifest.c.kind != "heartbeat").order_by(manifest.c.number)
        with self._store.reading() as connection:
            return list(dict.fromkeys(connection.execute(query).scalars()))

    def candidates(self, pixels: Sequence[bytes], instances: Sequence[bytes]) -> list[Listed]:
        asked = {"pixels": list(pixels), "instances": list(instances)}
        with self._store.reading() as connection:
            found: Sequence[Any] = connection.execute(_SAME_BOTH, asked).all()
            if not found:
                found = [row for query in (_SAME_INSTANCE, _SAME_PIXELS) for row in connection.execute(query, asked)]
        tokens = frozenset(instances)
        listed = [rows.listed(row, same_instance=row.instance in tokens) for row in found]
        return sorted(listed, key=lambda one: (not one.same_instance, one.manifest, one.line))

    def with_record(self, record: bytes) -> Listed | None:
        query = select(entry).where(entry.c.record == record, entry.c.lists == 1).order_by(entry.c.manifest).limit(1)
        with self._store.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else rows.listed(row)

    # ---- what is there ----

    def unseen(self, images: Sequence[tuple[str, str]]) -> set[str]:
        wanted = {rows.octets(path): (path, stamp) for path, stamp in images}
        with self._store.writing() as connection:
            for batch in batches(wanted):
                query = select(image.c.number, image.c.path, image.c.stamp).where(image.c.path.in_(batch))
                same = [row for row in connection.execute(query) if row.stamp == wanted[row.path][1]]
                if same:
                    known = [row.number for row in same]
                    connection.execute(update(image).where(image.c.number.in_(known)).values(run=self._run))
                for row in same:
                    del wanted[row.path]
        return {path for path, _ in wanted.values()}

    def put(self, examined: Sequence[Examined]) -> None:
        # Known for good only once they are on disk.
        known = dict(self._steps)
        with self._store.writing() as connection:
            for batch in batches(examined):
                old = select(image.c.number).where(image.c.path.in_([rows.octets(one.path) for one in batch]))
                loading.forget(connection, old)
                first = self._next
                self._next += len(batch)
                connection.execute(insert(image), [self._image_row(number, one) for number, one in enumerate(batch, first)])
                steps = [row for number, one in enumerate(batch, first) for row in _step_rows(connection, known, number, one)]
                if steps:
                    connection.execute(insert(image_step), steps)
        self._steps = known

    def settle(self) -> None:
        with self._store.writing() as connection:
            loading.forget(connection, select(image.c.number).where(image.c.run != self._run))
            loading.number_copies(connection)
            loading.explain(connection)

    def _image_row(self, number: int, one: Examined) -> dict[str, Any]:
        verdict = one.verdict
        wrong = [rows.step_said(known) for known in verdict.custody if known.finding]
        return {
            "number": number,
            "path": rows.octets(one.path),
            "stamp": one.stamp,
            "run": self._run,
            "listed": one.listed,
            "how": one.how,
            "copy": 0,
            "is_read": int(one.is_read),
            "verdict": str(verdict.token),
            "exit_code": verdict.exit_code,
            "record": verdict.record_id,
            "origin_key": one.origin.key if one.origin else None,
            "origin_counter": rows.u64(one.origin.counter) if one.origin else None,
            "said": json.dumps([verdict.device, verdict.sealed_between, verdict.reasons]),
            "custody": json.dumps(wrong) if wrong else None,
        }

    # ---- what was found ----

    def counts(self) -> dict[tuple[str, int], int]:
        columns = (image.c.verdict, image.c.exit_code)
        with self._store.reading() as connection:
            found = connection.execute(select(*columns, func.count()).group_by(*columns).order_by(*columns)).all()
        return {(verdict, code): count for verdict, code, count in found}

    def visits(self) -> Iterator[VisitCount]:
        there = and_(image.c.listed == entry.c.record, image.c.copy == 0)
        columns = (entry.c.subject, entry.c.visit)
        query = (
            select(
                *columns,
                func.count(entry.c.record),
                func.count().filter(entry.c.status == "withheld"),
                func.count(image.c.number),
                func.count().filter(image.c.how == PROVEN),
            )
            .select_from(entry.outerjoin(image, there))
            .where(entry.c.manifest == MAIN)
            .group_by(*columns)
        )
        for row in self._pages(query, columns, lambda row: (row[0], row[1])):
            yield VisitCount(*row)

    def other_visits(self) -> Iterator[tuple[str, str]]:
        columns = (entry.c.subject, entry.c.visit)
        query = select(*columns).where(entry.c.manifest != MAIN, entry.c.lists == 1).group_by(*columns)
        for row in self._pages(query, columns, lambda row: (row[0], row[1])):
            yield row[0], row[1]

    def sightings(self) -> Iterator[Sighting]:
        again = entry.alias()
        first = select(func.min(again.c.manifest)).where(again.c.record == image.c.listed, again.c.lists == 1).correlate(image)
        own = and_(entry.c.record == image.c.listed, entry.c.manifest == first.scalar_subquery())
        query = select(image, *(column.label(f"entry_{column.name}") for column in entry.c)).select_from(
            image.outerjoin(entry, own)
        )
        for row in self._pages(query, (image.c.path,), lambda row: (row.path,)):
            yield rows.sighting(row)

    def absent(self) -> Iterator[Row]:
        there = select(image.c.number).where(image.c.listed == entry.c.record, ~rows.is_stray()).exists()
        again = entry.alias()
        sent = (
            select(again.c.line).where(again.c.record == entry.c.record, again.c.status == "sent", again.c.lists == 1).exists()
        )
        query = select(entry).where(
            entry.c.manifest == MAIN, entry.c.record.is_not(None), ~there, or_(entry.c.status == "sent", ~sent)
        )
        for row in self._pages(query, (entry.c.line,), lambda row: (row.line,)):
            status: RowStatus = "withheld" if row.status == "withheld" else "missing"
            reasons = (row.reason,) if row.reason else ()
            record = "0x" + row.record.hex()
            yield Row(None, row.subject, row.visit, None, status, record, None, (None, None), reasons)

    def made_only(self) -> Iterator[tuple[str, str, Origin]]:
        listed = (
            select(explained.c.counter)
            .where(
                explained.c.key == entry.c.origin_key,
                explained.c.counter == entry.c.origin_counter,
                explained.c.is_other == LISTED,
            )
            .exists()
        )
        columns = (entry.c.subject, entry.c.visit, entry.c.origin_key, entry.c.origin_counter)
        query = select(*columns).where(entry.c.lists == 0, entry.c.record.is_not(None), ~listed).distinct()
        for row in self._pages(query, columns, tuple):
            yield row[0], row[1], Origin(row[2], rows.number(row[3]))

    def accounts(self) -> Iterator[tuple[bytes, list[Span]]]:
        keys = select(account.c.key).distinct()
        for (key,) in self._pages(keys, (account.c.key,), tuple):
            query = select(account).where(account.c.key == key).order_by(account.c.first, account.c.last, account.c.number)
            with self._store.reading() as connection:
                found = connection.execute(query).all()
            yield key, [Span(rows.number(row.first), rows.number(row.last), row.subject, row.visit) for row in found]

    def counters(self, key: bytes) -> Iterator[int]:
        query = select(explained.c.counter).where(explained.c.key == key).distinct()
        for row in self._pages(query, (explained.c.counter,), tuple):
            yield rows.number(row[0])

    def steps(self) -> list[tuple[CustodyStep, int, tuple[bytes, ...]]]:
        one, other = image_step.alias(), image_step.alias()
        of_image = and_(other.c.image == one.c.image, other.c.place == one.c.parent)
        links = select(one.c.step, other.c.step).select_from(one.join(other, of_image)).distinct()
        times = (func.min(image_step.c.claimed), func.min(image_step.c.after), func.max(image_step.c.before))
        groups = select(image_step.c.step, func.max(image_step.c.place), func.count(image_step.c.image.distinct()), *times)
        with self._store.reading() as connection:
            known = {row.number: row for row in connection.execute(select(step))}
            counted = connection.execute(groups.group_by(image_step.c.step)).all()
            parents: dict[int, list[int]] = {}
            for child, parent in connection.execute(links):
                parents.setdefault(child, []).append(parent)
            records = {number: _representative(connection, number) for number, *_ in counted}
        found = []
        for number, _, count, claimed, after, before in sorted(counted, key=lambda row: (row[1], row[0])):
            row = known[number]
            shown = CustodyStep(
                row.action,
                row.operation,
                row.by or None,
                int(claimed),
                (None if after is None else int(after), None if before is None else int(before)),
                records[number],
                finding=row.finding or None,
                detail=row.detail,
            )
            above = sorted({record for parent in parents.get(number, ()) if (record := records[parent]) is not None})
            found.append((shown, count, tuple(one for one in above if one != records[number])))
        return found

    def _pages(self, query: Select[Any], order: Sequence[Any], place: Callable[[Any], Sequence[Any]]) -> Iterator[Any]:
        """The rows of a query in an order without equals, page by page: between two pages nothing is held open."""
        last: Sequence[Any] | None = None
        while True:
            page = query.order_by(*order).limit(PAGE)
            if last is not None:
                page = page.where(tuple_(*order) > tuple_(*last) if len(order) > 1 else order[0] > last[0])
            with self._store.reading() as connection:
                found = connection.execute(page).all()
            yield from found
            if len(found) < PAGE:
                return
            last = place(found[-1])


def _keep(connection: Connection, values: dict[str, str]) -> None:
    connection.execute(delete(meta).where(meta.c.name.in_(list(values))))
    connection.execute(insert(meta), [{"name": name, "value": value} for name, value in values.items()])


def _representative(connection: Connection, number: int) -> bytes | None:
    """The record of the first image that had a step."""
    columns = image_step.c
    query = select(columns.record).where(columns.step == number).order_by(columns.image, columns.place).limit(1)
    record: bytes | None = connection.execute(query).scalar_one_or_none()
    return record


def _step_rows(
    connection: Connection, numbers: dict[tuple[str, ...], int], number: int, one: Examined
) -> Iterator[dict[str, Any]]:
    """The custody of an image; steps that are new get a number."""
    custody = one.verdict.custody
    places = {known.record_id: place for place, known in enumerate(custody) if known.record_id is not None}
    for place, known in enumerate(custody):
        parent = places.get(known.parents[0]) if known.parents else None
        yield {
            "image": number,
            "place": place,
            "step": _step_number(connection, numbers, known),
            "claimed": rows.digits(known.claimed_time),
            "after": rows.digits(known.between[0]),
            "before": rows.digits(known.between[1]),
            "record": known.record_id,
            "parent": None if parent == place else parent,
        }


def _step_number(connection: Connection, numbers: dict[tuple[str, ...], int], one: CustodyStep) -> int:
    key = (one.action, one.operation, rows.shown(one.by or ""), one.finding or "", rows.shown(one.detail))
    if key not in numbers and len(numbers) >= _STEPS:
        key = (*key[:4], "")
    if key not in numbers:
        numbers[key] = len(numbers) + 1
        columns = ("number", "action", "operation", "by", "finding", "detail")
        connection.execute(insert(step), [dict(zip(columns, (numbers[key], *key), strict=True))])
    return numbers[key]
