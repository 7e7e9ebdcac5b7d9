"""An audit's workbook: what was listed and what was found, in a SQLite file of its own, so that a run of any length takes
little memory and goes on where it was interrupted. Duties: `ledger.audit.reconcile.Book`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError

from ledger.audit.reconcile import Examined, Listed
from ledger.audit.result import Row, RowStatus
from ledger.core.errors import EvidenceInvalid, FixInput, NeedPermission, TryLater
from ledger.core.manifest import Account, Entry, Header
from ledger.core.verdict import CustodyStep

_BATCH: Final = 500
_metadata = MetaData()

_meta = Table("meta", _metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))

_manifest = Table(
    "manifest",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("find_key", LargeBinary, nullable=False),
)

_account = Table(
    "account",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("key", LargeBinary, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("others", Text, nullable=False),
    Column("subject", Text),
    Column("visit", Text),
    UniqueConstraint("key", "first", "last", "others"),
)

_entry = Table(
    "entry",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("manifest", Integer, nullable=False),
    Column("line", Integer, nullable=False),
    Column("record", LargeBinary),
    Column("pixels_token", LargeBinary, index=True),
    Column("instance_token", LargeBinary, index=True),
    Column("subject", Text, nullable=False),
    Column("visit", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("evidence", Text),
    Column("origin_key", LargeBinary),
    Column("origin_counter", BigInteger),
    Column("reason", Text),
    UniqueConstraint("manifest", "record"),
    Index("entry_origin", "origin_key", "origin_counter"),
    Index("entry_visit", "subject", "visit"),
)

_image = Table(
    "image",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("path", Text, nullable=False, unique=True),
    Column("entry", Integer, index=True),
    Column("status", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("exit_code", Integer, nullable=False),
    Column("record_id", LargeBinary),
    Column("device", Text),
    Column("after", BigInteger),
    Column("before", BigInteger),
    Column("reasons", Text, nullable=False),
)

_step = Table(
    "step",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("action", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("finding", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("order_of", Integer, nullable=False, comment="where it stands in the longest history it was seen in"),
    Column("claimed", BigInteger, nullable=False),
    Column("after", BigInteger),
    Column("before", BigInteger),
    Column("record_id", Text, nullable=False),
    Column("images", Integer, nullable=False),
    UniqueConstraint("action", "operation", "by", "finding", "detail"),
)

MAIN: Final = 1
"""The number of the manifest that is audited; others only account for counters."""


class Workbook:
    """One audit's workbook. All or nothing of each call is on disk when it returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.parent.is_dir():
            raise FixInput(f"{path.parent}: no such folder for the audit's workbook")
        self._engine = create_engine(f"sqlite:///{path}")
        event.listen(self._engine, "connect", _settings)
        with self._writing() as connection:
            _metadata.create_all(connection)

    def close(self) -> None:
        self._engine.dispose()

    # ---- what is audited ----

    def begin(self, identity: str, started: int) -> tuple[bool, int]:
        """(whether the lists are loaded already, when the audit began). Raises FixInput for the workbook of another audit."""
        with self._writing() as connection:
            known = dict(connection.execute(select(_meta.c.name, _meta.c.value)).tuples().all())
            if not known:
                connection.execute(
                    insert(_meta), [{"name": "identity", "value": identity}, {"name": "started", "value": str(started)}]
                )
                return False, started
        if known["identity"] != identity:
            raise FixInput(
                f"{self._path.name} is the workbook of another audit (another manifest, trust file or policy): give this one a "
                "file of its own with --workbook, or remove it"
            )
        return "loaded" in known, int(known["started"])

    def note(self, name: str, value: str) -> None:
        """Keeps a value under a name, in place of an older one."""
        with self._writing() as connection:
            connection.execute(_meta.delete().where(_meta.c.name == name))
            connection.execute(insert(_meta).values(name=name, value=value))

    def noted(self, name: str) -> str | None:
        with self._reading() as connection:
            return connection.execute(select(_meta.c.value).where(_meta.c.name == name)).scalar_one_or_none()

    def load(self, manifests: Iterable[tuple[str, Header, Iterable[Entry]]]) -> None:
        """Takes the manifests in, the audited one first; those of a run that stopped in between are taken in anew.

        Raises EvidenceInvalid for a record that a manifest lists twice.
        """
        with self._writing() as connection:
            for table in (_manifest, _account, _entry):
                connection.execute(table.delete())
            for number, (name, header, entries) in enumerate(manifests, MAIN):
                connection.execute(insert(_manifest).values(id=number, name=name, find_key=header.find_key))
                for account in header.accounts:
                    connection.execute(insert(_account).prefix_with("OR IGNORE"), [_account_row(account, header)])
                batch: list[dict[str, Any]] = []
                for line, entry in enumerate(entries, 2):
                    batch.append(_entry_row(number, line, entry))
                    if len(batch) == _BATCH:
                        _insert_entries(connection, batch, name)
                        batch = []
                _insert_entries(connection, batch, name)
            connection.execute(insert(_meta).values(name="loaded", value="1"))

    def find_keys(self) -> list[bytes]:
        """The find key of the audited manifest, then those of others."""
        with self._reading() as connection:
            return list(connection.execute(select(_manifest.c.find_key).order_by(_manifest.c.id)).scalars())

    def listed(self, pixels: bytes, instance: bytes) -> list[Listed]:
        """The images of the audited manifest with one of these tokens, the same instance first."""
        columns = _entry.c
        query = select(_entry).where(
            columns.manifest == MAIN,
            columns.record.is_not(None),
            (columns.instance_token == instance) | (columns.pixels_token == pixels),
        )
        with self._reading() as connection:
            rows = connection.execute(query.order_by(columns.line)).all()
        rows = sorted(rows, key=lambda row: row.instance_token != instance)
        return [Listed(row.id, row.manifest, row.record, row.subject, row.visit, row.status, row.evidence) for row in rows]

    # ---- what is there ----

    def is_examined(self, path: str) -> bool:
        with self._reading() as connection:
            return connection.execute(select(_image.c.id).where(_image.c.path == path)).scalar_one_or_none() is not None

    def put(self, examined: Sequence[Examined]) -> None:
        """Notes images with their custody steps."""
        with self._writing() as connection:
            for one in examined:
                connection.execute(insert(_image).values(_image_row(one)))
                for place, step in enumerate(one.verdict.custody):
                    _count_step(connection, place, step)

    # ---- what was found ----

    def counts(self) -> dict[tuple[str, str, int], int]:
        """(status, verdict, exit code) -> images."""
        query = select(_image.c.status, _image.c.verdict, _image.c.exit_code, func.count()).group_by(
            _image.c.status, _image.c.verdict, _image.c.exit_code
        )
        with self._reading() as connection:
            return {(status, verdict, code): count for status, verdict, code, count in connection.execute(query).tuples()}

    def visits(self) -> Iterator[tuple[str, str, dict[str, int]]]:
        """(subject, visit, counts) of each visit of the audited manifest: `listed`, `withheld`, `present`, `in_order`."""
        columns = _entry.c
        present = (
            select(
                _image.c.entry,
                func.count().label("copies"),
                func.min(_image.c.exit_code).label("best"),
                func.min(_image.c.status).label("status"),
            )
            .where(_image.c.entry.is_not(None))
            .group_by(_image.c.entry)
            .subquery()
        )
        query = (
            select(
                columns.subject,
                columns.visit,
                columns.status,
                present.c.copies,
                present.c.best,
                present.c.status.label("as_listed"),
            )
            .select_from(_entry.outerjoin(present, present.c.entry == columns.id))
            .where(columns.manifest == MAIN)
            .order_by(columns.subject, columns.visit)
        )
        current: tuple[str, str] | None = None
        counts: dict[str, int] = {}
        with self._reading() as connection:
            for row in connection.execution_options(yield_per=_BATCH).execute(query):
                if (row.subject, row.visit) != current:
                    if current is not None:
                        yield (*current, counts)
                    current, counts = (row.subject, row.visit), dict.fromkeys(("listed", "withheld", "present", "in_order"), 0)
                if row.status == "none":
                    continue
                counts["listed"] += 1
                counts["withheld"] += row.status == "withheld"
                counts["present"] += row.copies is not None
                counts["in_order"] += row.copies is not None and row.best == 0 and row.as_listed == "listed"
        if current is not None:
            yield (*current, counts)

    def rows(self) -> Iterator[Row]:
        """Every image that is there, then every one that is listed and is not."""
        query = select(_image, _entry.c.subject, _entry.c.visit).select_from(
            _image.outerjoin(_entry, _entry.c.id == _image.c.entry)
        )
        with self._reading() as connection:
            for row in connection.execution_options(yield_per=_BATCH).execute(query.order_by(_image.c.path)):
                yield _row(row)
            for entry in connection.execution_options(yield_per=_BATCH).execute(_absent().order_by(_entry.c.line)):
                status: RowStatus = "withheld" if entry.status == "withheld" else "missing"
                record = "0x" + entry.record.hex()
                reasons = (entry.reason,) if entry.reason else ()
                yield Row(None, entry.subject, entry.visit, None, status, record, None, (None, None), reasons)

    def repeated(self) -> Iterator[tuple[str, str, str]]:
        """(subject, visit, path) of every image that is there though the same listed one was found before."""
        first = select(func.min(_image.c.id)).where(_image.c.entry.is_not(None)).group_by(_image.c.entry)
        query = (
            select(_entry.c.subject, _entry.c.visit, _image.c.path)
            .select_from(_image.join(_entry, _entry.c.id == _image.c.entry))
            .where(_image.c.id.not_in(first))
            .order_by(_image.c.path)
        )
        with self._reading() as connection:
            yield from connection.execute(query).tuples()

    def accounts(self) -> list[tuple[bytes, Account]]:
        """(key, account) of every manifest."""
        with self._reading() as connection:
            rows = connection.execute(select(_account).order_by(_account.c.key, _account.c.first)).all()
        return [
            (
                row.key,
                Account(
                    key=row.key,
                    first=row.first,
                    last=row.last,
                    others=tuple(json.loads(row.others)),
                    subject=row.subject,
                    visit=row.visit,
                ),
            )
            for row in rows
        ]

    def counters(self, key: bytes, first: int, last: int) -> Iterator[int]:
        """The counters of a key between two that some manifest lists, in order."""
        columns = _entry.c
        query = (
            select(columns.origin_counter)
            .where(columns.origin_key == key, columns.origin_counter >= first, columns.origin_counter <= last)
            .distinct()
            .order_by(columns.origin_counter)
        )
        with self._reading() as connection:
            yield from connection.execution_options(yield_per=_BATCH).execute(query).scalars()

    def steps(self) -> list[tuple[CustodyStep, int]]:
        """(step, how many images had it), in the order of a history."""
        with self._reading() as connection:
            rows = connection.execute(select(_step).order_by(_step.c.order_of, _step.c.id)).all()
        return [
            (
                CustodyStep(
                    row.action,
                    row.operation,
                    row.by or None,
                    row.claimed,
                    (row.after, row.before),
                    bytes.fromhex(row.record_id) if row.record_id else None,
                    finding=row.finding or None,
                    detail=row.detail,
                ),
                row.images,
            )
            for row in rows
        ]

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.rollback()
                    raise
                connection.commit()
        except OperationalError as error:
            raise _translated(self._path, error) from error
        except DatabaseError as error:
            raise FixInput(f"{self._path}: not an audit's workbook, or a damaged one: remove it, or name another") from error

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except OperationalError as error:
            raise _translated(self._path, error) from error


def _absent() -> Any:
    there = select(_image.c.entry).where(_image.c.entry.is_not(None))
    return select(_entry).where(_entry.c.manifest == MAIN, _entry.c.record.is_not(None), _entry.c.id.not_in(there))


def _settings(connection: Any, _: Any) -> None:
    connection.isolation_level = None
    for setting in ("journal_mode = WAL", "synchronous = NORMAL", "trusted_schema = OFF"):
        connection.execute(f"PRAGMA {setting}")


def _translated(path: Path, error: OperationalError) -> Exception:
    text = str(error.orig)
    if "readonly" in text or "unable to open" in text:
        return NeedPermission(f"{path}: the audit's workbook cannot be written ({text})")
    return TryLater(f"{path}: {text}; nothing is lost, run the audit again")


def _insert_entries(connection: Connection, batch: list[dict[str, Any]], name: str) -> None:
    if not batch:
        return
    try:
        connection.execute(insert(_entry), batch)
    except IntegrityError as error:
        raise EvidenceInvalid(f"{name}: it lists a record twice, near line {batch[0]['line']}", "manifest") from error


def _account_row(account: Account, header: Header) -> dict[str, Any]:
    return {
        "key": account.key,
        "first": account.first,
        "last": account.last,
        "others": json.dumps(account.others),
        "subject": account.subject or header.subject,
        "visit": account.visit or header.visit,
    }


def _entry_row(manifest: int, line: int, entry: Entry) -> dict[str, Any]:
    pixels, instance = entry.tokens
    return {
        "manifest": manifest,
        "line": line,
        "record": entry.record,
        "pixels_token": pixels or None,
        "instance_token": instance or None,
        "subject": entry.subject,
        "visit": entry.visit,
        "status": entry.status,
        "evidence": entry.evidence,
        "origin_key": entry.origin.key if entry.origin else None,
        "origin_counter": entry.origin.counter if entry.origin else None,
        "reason": entry.reason,
    }


def _image_row(one: Examined) -> Mapping[str, Any]:
    verdict = one.verdict
    return {
        "path": one.path,
        "entry": one.entry,
        "status": one.status,
        "verdict": str(verdict.token),
        "exit_code": verdict.exit_code,
        "record_id": verdict.record_id,
        "device": verdict.device,
        "after": verdict.sealed_between[0],
        "before": verdict.sealed_between[1],
        "reasons": json.dumps(verdict.reasons, ensure_ascii=False),
    }


def _count_step(connection: Connection, place: int, step: CustodyStep) -> None:
    key = {
        "action": step.action,
        "operation": step.operation,
        "by": step.by or "",
        "finding": step.finding or "",
        "detail": step.detail,
    }
    where = [_step.c[name] == value for name, value in key.items()]
    known = connection.execute(select(_step).where(*where)).one_or_none()
    if known is None:
        record_id = step.record_id.hex() if step.record_id else ""
        times = {"claimed": min(step.claimed_time, (1 << 63) - 1), "after": step.between[0], "before": step.between[1]}
        connection.execute(insert(_step).values(**key, **times, order_of=place, record_id=record_id, images=1))
        return
    values = {
        "images": known.images + 1,
        "order_of": max(known.order_of, place),
        "claimed": min(known.claimed, step.claimed_time),
        "after": min((time for time in (known.after, step.between[0]) if time is not None), default=None),
        "before": max((time for time in (known.before, step.between[1]) if time is not None), default=None),
    }
    connection.execute(update(_step).where(_step.c.id == known.id).values(**values))


def _row(row: Any) -> Row:
    return Row(
        row.path,
        row.subject,
        row.visit,
        row.verdict,
        row.status,
        "0x" + row.record_id.hex() if row.record_id else None,
        row.device,
        (row.after, row.before),
        tuple(json.loads(row.reasons)),
    )
