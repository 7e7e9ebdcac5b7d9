"""Writing a report: every format from the same result, in one pass over the exceptions and one over the images."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, TextIO

from ledger.audit.report import html, pdf, tables
from ledger.audit.report.document import Document
from ledger.audit.report.view import Copy, Exceptions, document
from ledger.audit.report.words import words
from ledger.audit.result import AuditResult, Finding, Row, blinded
from ledger.core.errors import FixInput, Stop

FORMATS: Final = ("html", "pdf", "csv", "json")
SEEING_WITHHELD: Final = frozenset(("auditor", "sponsor"))
"""Audiences that see what was withheld, where the trial says nothing else."""
_NAMES: Final = {
    "html": ("report.html",),
    "pdf": ("report.pdf",),
    "csv": ("images.csv", "findings.csv"),
    "json": ("report.json", "report.schema.json"),
}


def write_report(
    result: AuditResult,
    rows: Iterable[Row],
    findings: Iterable[Finding],
    folder: Path,
    lang: str = "en",
    audience: str = "auditor",
    formats: Collection[str] = FORMATS,
    *,
    seeing_withheld: Collection[str] = SEEING_WITHHELD,
) -> tuple[Path, ...]:
    """Writes the report into `folder` (made if need be), and gives the files, in the order of `FORMATS`.

    `rows` and `findings` are all of the audit's, each read once, so they may stream. An audience that is not among
    `seeing_withheld` gets a copy in which nothing differs from an audit in which nothing was withheld. Files take their place
    when all are complete. Raises FixInput for an unknown language or format, or a result without its blinded view; Stop where
    the findings are not those of the result.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown or not formats:
        raise FixInput(f"formats are {', '.join(FORMATS)}; {', '.join(unknown) or 'none was asked for'}")
    sees_withheld = audience in seeing_withheld
    text = words(lang)
    view = result if sees_withheld else blinded(result)
    names = [name for one in FORMATS if one in formats for name in _NAMES[one]]
    folder.mkdir(parents=True, exist_ok=True)
    parts = {name: folder / f".{name}.part" for name in names}
    try:
        exceptions = Exceptions(text)
        with ExitStack() as stack:
            files = {name: stack.enter_context(_open(path)) for name, path in parts.items() if not name.endswith("pdf")}
            _stream(view, rows, findings, files, exceptions, audience, sees_withheld=sees_withheld)
            copy = Copy(audience, sees_withheld, "findings.csv" if "csv" in formats else None)
            made = document(view, exceptions, copy, text)
            if "report.html" in files:
                files["report.html"].write(html.page(made))
        if "report.pdf" in parts:
            _write_pdf(parts["report.pdf"], made)
        for name, path in parts.items():
            path.replace(folder / name)
    finally:
        for path in parts.values():
            path.unlink(missing_ok=True)
    return tuple(folder / name for name in names)


def _open(path: Path) -> TextIO:
    return path.open("w", encoding="utf-8", newline="")


def _write_pdf(path: Path, made: Document) -> None:
    with path.open("wb") as file:
        pdf.write(made, file)


def _stream(
    view: AuditResult,
    rows: Iterable[Row],
    findings: Iterable[Finding],
    files: dict[str, TextIO],
    exceptions: Exceptions,
    audience: str,
    *,
    sees_withheld: bool,
) -> None:
    """Passes everything that this copy may show to the formats that list all of it, and to the exceptions' groups."""
    listed = tables.Csv(files["findings.csv"], tables.FINDING_COLUMNS) if "findings.csv" in files else None
    whole = tables.Json(files["report.json"], view, audience, sees_withheld=sees_withheld) if "report.json" in files else None
    for finding in findings:
        if finding.is_restricted and not sees_withheld:
            continue
        number = exceptions.add(finding)
        if listed:
            listed.finding(number, finding)
        if whole:
            whole.finding(number, finding)
    if exceptions.total != view.findings_total:
        raise Stop(f"the result has {view.findings_total} findings, {exceptions.total} were given: they are of two audits")
    images = tables.Csv(files["images.csv"], tables.IMAGE_COLUMNS) if "images.csv" in files else None
    if whole:
        whole.images()
    if images or whole:
        for row in rows:
            if row.status == "withheld" and not sees_withheld:
                continue
            if images:
                images.image(row)
            if whole:
                whole.image(row)
    if whole:
        whole.close()
        files["report.schema.json"].write(tables.schema())
