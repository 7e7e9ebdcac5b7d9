"""Rows of a workbook as the audit has them, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sqlalchemy import and_

from ledger.audit.result import Row, RowStatus
from ledger.audit.workbook import PROVEN, SAME_PIXELS, Listed, Origin, Sighting
from ledger.core.verdict import CustodyStep
from ledger.store.audit.schema import image


def u64(number: int) -> bytes:
    return number.to_bytes(8, "big")


def number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def digits(number: int | None) -> str | None:
    return None if number is None else f"{number:020d}"


def octets(path: str) -> bytes:
    """A file's name as the system has it, which need not be text."""
    return path.encode("utf-8", "surrogateescape")


def shown(text: str) -> str:
    """Text that any report takes: bytes of a file's name that are no text are written out."""
    try:
        return octets(text).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()


def listed(row: Any, *, same_instance: bool = False) -> Listed:
    origin = Origin(row.origin_key, number(row.origin_counter))
    return Listed(
        row.manifest,
        row.line,
        row.record,
        row.subject,
        row.visit,
        row.status,
        row.evidence,
        origin,
        same_instance=same_instance,
    )


def is_stray() -> Any:
    """Whether an image only looks like a listed one that another file is."""
    return and_(image.c.how == SAME_PIXELS, image.c.copy > 0)


def sighting(row: Any) -> Sighting:
    device, between, reasons = json.loads(row.said)
    only_looks_alike = row.how == SAME_PIXELS and row.copy > 0
    entry = None
    if row.entry_record is not None and not only_looks_alike:
        entry = Listed(
            row.entry_manifest,
            row.entry_line,
            row.entry_record,
            row.entry_subject,
            row.entry_visit,
            row.entry_status,
            row.entry_evidence,
            Origin(row.entry_origin_key, number(row.entry_origin_counter)),
        )
    origin = None if row.origin_key is None else Origin(row.origin_key, number(row.origin_counter))
    status: RowStatus
    if entry is None:
        status = "unexpected" if row.is_read else "unreadable"
    else:
        status = "other_record" if row.exit_code == 0 and row.how != PROVEN else "listed"
    found = Row(
        path=row.path.decode("utf-8", "backslashreplace"),
        subject=entry.subject if entry else None,
        visit=entry.visit if entry else None,
        verdict=row.verdict,
        status=status,
        record_id="0x" + row.record.hex() if row.record else None,
        device=device,
        sealed_between=(between[0], between[1]),
        reasons=tuple(shown(reason) for reason in reasons),
    )
    return Sighting(found, entry, row.how, row.copy > 0 and not only_looks_alike, origin, tuple(steps_said(row.custody)))


def step_said(one: CustodyStep) -> list[Any]:
    record_id = one.record_id.hex() if one.record_id else None
    return [one.action, one.operation, one.by, one.claimed_time, one.between, record_id, one.finding, one.detail]


def steps_said(text: str | None) -> Iterator[CustodyStep]:
    for action, operation, by, claimed, between, record_id, finding, detail in json.loads(text or "[]"):
        known = bytes.fromhex(record_id) if record_id else None
        yield CustodyStep(action, operation, by, claimed, (between[0], between[1]), known, finding=finding, detail=detail)
