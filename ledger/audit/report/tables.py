"""The report for programs: CSV of all images and all exceptions, and JSON of everything. They stream: memory stays flat.

Names and values are the same in every language. JSON holds values as they are, but for half characters (of a file name that is
no text), which no JSON can; CSV holds `visible` text.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any, Final, TextIO

from ledger.audit.report.text import iso, visible
from ledger.audit.result import AuditResult, Finding, Row, Signature, Step, VisitResult

FORMAT: Final = "scanseal-audit-report-1"
IMAGE_COLUMNS: Final = (
    *("path", "subject", "visit", "status", "verdict", "record_id", "device", "sealed_after", "sealed_before", "reasons"),
)
FINDING_COLUMNS: Final = ("number", "kind", "subject", "visit", "path", "verdict", "record_id", "detail", "parameters")
_FORMULA: Final = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""What a spreadsheet may take for a formula's start."""
_HALF: Final = re.compile(r"[\ud800-\udfff]")


class Csv:
    """One CSV file: RFC 4180, UTF-8 with a byte order mark (spreadsheets need it), every cell in quotation marks, so that no
    other separator finds cells of its own. A cell that a spreadsheet may take for a formula starts with an apostrophe."""

    def __init__(self, file: TextIO, columns: Iterable[str]) -> None:
        self._writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
        file.write("\ufeff")
        self._writer.writerow(columns)

    def image(self, row: Row) -> None:
        after, before = row.sealed_between
        self._write(
            row.path, row.subject, row.visit, row.status, row.verdict, row.record_id, row.device, iso(after), iso(before),
            "; ".join(row.reasons),
        )  # fmt: skip

    def finding(self, number: int, finding: Finding) -> None:
        parameters = "; ".join(f"{name}: {value}" for name, value in sorted(finding.parameters.items()))
        self._write(
            str(number), finding.kind, finding.subject, finding.visit, finding.path, finding.verdict, finding.record_id,
            finding.detail, parameters,
        )  # fmt: skip

    def _write(self, *cells: str | None) -> None:
        self._writer.writerow([_cell(cell or "") for cell in cells])


def _cell(text: str) -> str:
    text = visible(text)
    return "'" + text if text.lstrip(" '\"").startswith(_FORMULA) else text


class Json:
    """One JSON file by the schema of `schema()`: the head, then `findings`, then `images` as they stream by."""

    def __init__(self, file: TextIO, result: AuditResult, audience: str, *, sees_withheld: bool) -> None:
        self._file, self._is_first = file, True
        head = _dumps(_head(result, audience, sees_withheld=sees_withheld), indent=1)
        file.write(head.removesuffix("\n}"))
        self._open("findings")

    def finding(self, number: int, finding: Finding) -> None:
        self._item(_finding(number, finding))

    def images(self) -> None:
        """After the last finding, before the first image."""
        self._file.write("\n ]")
        self._open("images")

    def image(self, row: Row) -> None:
        self._item(_row(row))

    def close(self) -> None:
        self._file.write("\n ]\n}\n")

    def _open(self, name: str) -> None:
        self._file.write(f',\n "{name}": [')
        self._is_first = True

    def _item(self, value: Mapping[str, Any]) -> None:
        self._file.write(("\n  " if self._is_first else ",\n  ") + _dumps(value))
        self._is_first = False


def _dumps(value: Mapping[str, Any], indent: int | None = None) -> str:
    return _HALF.sub(lambda match: visible(match[0]), json.dumps(value, indent=indent, ensure_ascii=False))


def schema() -> str:
    """The JSON Schema (2020-12) of the JSON report."""
    return resources.files("ledger.audit.report").joinpath("report.schema.json").read_text("utf-8")


def _head(result: AuditResult, audience: str, *, sees_withheld: bool) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "audience": audience,
        "may_be_restricted": not sees_withheld,
        "verdict": str(result.token),
        "exit_code": result.exit_code,
        "trial": result.trial,
        "site": result.site,
        "list": {"kind": result.manifest_kind, "record_id": result.manifest_record, "digest": result.manifest_digest},
        "listed": result.listed,
        "present": result.present,
        "verdicts": dict(result.images),
        "findings_total": result.findings_total,
        "visits": [_visit(visit, sees_withheld=sees_withheld) for visit in result.visits],
        "timeline": [_step(step) for step in result.timeline],
        "signatures": [_signature(signature) for signature in result.signatures],
        "approvals_required": result.approvals_required,
        "chain_id": result.chain_id,
        "anchor_log": result.anchor_log,
        "facts_as_of": iso(result.trust_as_of),
        "offline": result.offline,
        "started": iso(result.started),
        "finished": iso(result.finished),
        "software": result.software,
    }


def _visit(visit: VisitResult, *, sees_withheld: bool) -> dict[str, Any]:
    return {
        "subject": visit.subject,
        "visit": visit.visit,
        "verdict": str(visit.token),
        "listed": visit.listed,
        "present": visit.present,
        "in_order": visit.in_order,
        **({"withheld": visit.withheld} if sees_withheld else {}),
        "is_expected": visit.is_expected,
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "action": step.action,
        "record_type": step.role,
        "by": step.by,
        "images": step.count,
        "claimed_time": iso(step.claimed),
        "between": [iso(time) for time in step.between],
        "record_id": step.record_id or None,
        "parents": list(step.parents),
        "finding": step.finding,
        "detail": step.detail,
    }


def _signature(signature: Signature) -> dict[str, Any]:
    return {
        "name": signature.name,
        "meaning": signature.meaning,
        "claimed_time": iso(signature.time),
        "between": [iso(time) for time in signature.between],
        "record_id": signature.record_id,
    }


def _finding(number: int, finding: Finding) -> dict[str, Any]:
    return {
        "number": number,
        "kind": finding.kind,
        "subject": finding.subject,
        "visit": finding.visit,
        "path": finding.path,
        "verdict": finding.verdict,
        "record_id": finding.record_id,
        "detail": finding.detail,
        "parameters": dict(finding.parameters),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "path": row.path,
        "subject": row.subject,
        "visit": row.visit,
        "status": row.status,
        "verdict": row.verdict,
        "record_id": row.record_id,
        "device": row.device,
        "sealed_between": [iso(time) for time in row.sealed_between],
        "reasons": list(row.reasons),
    }
