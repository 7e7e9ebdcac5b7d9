"""The visits that a protocol expects, from CSV or JSON as trial offices write them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from ledger.core.errors import FixInput

_REQUIRED: Final = ("subject", "visit")
_OPTIONAL: Final = ("due", "site", "modality", "minimum_images")
_DELIMITERS: Final = (",", ";", "\t")


@dataclass(frozen=True)
class ExpectedVisit:
    """A visit that the protocol asks for. Before the day `due` it is no gap that nothing is there; `minimum_images` is 1 unless
    the list says otherwise."""

    subject: str
    visit: str
    due: date | None = None
    site: str | None = None
    modality: str | None = None
    minimum_images: int = 1


def parse(data: bytes, name: str) -> tuple[ExpectedVisit, ...]:
    """The list in a file of this name (`.json`, else CSV). Raises FixInput naming the row that is wrong."""
    text = _decoded(data, name)
    rows = _json_rows(text, name) if name.lower().endswith(".json") else _csv_rows(text, name)
    visits: dict[tuple[str, str], ExpectedVisit] = {}
    for number, row in rows:
        visit = _visit(row, f"{name}, row {number}")
        if (visit.subject, visit.visit) in visits:
            raise FixInput(f"{name}, row {number}: this subject's visit is listed already")
        visits[visit.subject, visit.visit] = visit
    if not visits:
        raise FixInput(f"{name}: no visits in it")
    return tuple(visits.values())


def _decoded(data: bytes, name: str) -> str:
    """UTF-8, with or without byte order mark, UTF-16 with one, or Windows-1252 as spreadsheets save it."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encodings: tuple[str, ...] = ("utf-16",)
    else:
        encodings = ("utf-8-sig", "cp1252")
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise FixInput(f"{name}: neither UTF-8, UTF-16 nor Windows-1252 text: save it as CSV in UTF-8")


def _csv_rows(text: str, name: str) -> Iterable[tuple[int, Mapping[str, Any]]]:
    head = text.split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = [column.strip().lower() for column in next(reader, [])]
        _check_columns(columns, name)
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(columns):
                raise FixInput(f"{name}, row {reader.line_num}: {len(row)} cells where the header has {len(columns)}")
            yield reader.line_num, dict(zip(columns, row, strict=True))
    except csv.Error as error:
        raise FixInput(f"{name}, row {reader.line_num}: {error}") from error


def _json_rows(text: str, name: str) -> Iterable[tuple[int, Mapping[str, Any]]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FixInput(f"{name}: not JSON ({error})") from error
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise FixInput(f"{name}: a list of objects with {', '.join(_REQUIRED)} belongs here")
    for number, row in enumerate(value, 1):
        _check_columns(list(row), f"{name}, row {number}")
        yield number, row


def _check_columns(columns: list[str], where: str) -> None:
    missing = [column for column in _REQUIRED if column not in columns]
    unknown = [column for column in columns if column not in (*_REQUIRED, *_OPTIONAL)]
    if missing or unknown or len(set(columns)) != len(columns):
        found = f"{', '.join(missing)} missing" if missing else f"unknown or repeated: {', '.join(unknown or columns)}"
        raise FixInput(f"{where}: columns are {', '.join((*_REQUIRED, *_OPTIONAL))}; {found}")


def _visit(row: Mapping[str, Any], where: str) -> ExpectedVisit:
    values = {name: str(value).strip() for name, value in row.items() if value is not None and str(value).strip()}
    for name in _REQUIRED:
        value = values.get(name, "")
        if not value or len(value) > 256 or not value.isprintable():
            raise FixInput(f"{where}: {name} is empty, too long or not printable")
    try:
        due = date.fromisoformat(values["due"]) if "due" in values else None
    except ValueError as error:
        raise FixInput(f"{where}: due is a day, YYYY-MM-DD") from error
    minimum = values.get("minimum_images", "1")
    if not minimum.isascii() or not minimum.isdigit() or len(minimum) > 9:
        raise FixInput(f"{where}: minimum_images is a number")
    return ExpectedVisit(values["subject"], values["visit"], due, values.get("site"), values.get("modality"), int(minimum))
