"""The visits that a protocol expects, from CSV or JSON as trial offices write them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from pydantic_core import from_json

from ledger.core.errors import FixInput
from ledger.core.manifest import is_text

SIZE_LIMIT: Final = 1 << 26
"""Bytes of a list that are read: some million visits."""

_REQUIRED: Final = ("subject", "visit")
_OPTIONAL: Final = ("due", "site", "modality", "minimum_images")
_DELIMITERS: Final = (",", ";", "\t")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_COUNT = re.compile(r"[0-9]{1,9}")


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
    """The list in a file of this name (`.json`, else CSV). Raises FixInput naming the row that is wrong, never what is in it.

    CSV has a header with `subject` and `visit`; its delimiter (comma, semicolon, tab) is the one that the header has. JSON is a
    list of objects with the same names. Text is UTF-8, UTF-16 or Windows-1252.
    """
    if len(data) > SIZE_LIMIT:
        raise FixInput(f"{name}: {len(data)} bytes, at most {SIZE_LIMIT} are read")
    text = _decoded(data, name)
    rows = _json_rows(text, name) if name.lower().endswith(".json") else _csv_rows(text, name)
    visits: dict[tuple[str, str], ExpectedVisit] = {}
    lines: dict[tuple[str, str], int] = {}
    for number, row in rows:
        visit = _visit(row, f"{name}, row {number}")
        key = (visit.subject, visit.visit)
        if key in visits:
            raise FixInput(f"{name}, row {number}: this subject's visit is in row {lines[key]} already")
        visits[key], lines[key] = visit, number
    if not visits:
        raise FixInput(f"{name}: no visits in it")
    return tuple(visits.values())


def _decoded(data: bytes, name: str) -> str:
    """UTF-8, with or without byte order mark, UTF-16 (of which ASCII shows where its zero bytes are), or Windows-1252 as
    spreadsheets save it."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encodings: tuple[str, ...] = ("utf-16",)
    elif b"\0" in data[:2]:
        encodings = ("utf-16-be" if data[:1] == b"\0" else "utf-16-le",)
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


def _csv_rows(text: str, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    # Spreadsheets may write their delimiter in a line of its own before the header.
    skipped = 1 if re.match(r'"?sep=.?"?\r?\n', text) else 0
    body = text.split("\n", 1)[1] if skipped else text
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=_delimiter(body), strict=True)
    try:
        columns = _names(next(reader, []))
        _check_columns(columns, f"{name}, row {1 + skipped}")
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            number = reader.line_num + skipped
            if len(row) != len(columns):
                raise FixInput(f"{name}, row {number}: {len(row)} cells where the header has {len(columns)}")
            yield number, dict(zip(columns, row, strict=True))
    except csv.Error as error:
        raise FixInput(f"{name}, row {reader.line_num + skipped}: {error}") from error


def _delimiter(text: str) -> str:
    """The one under which the first line has most of the columns that are known."""

    def known(delimiter: str) -> int:
        try:
            header = _names(next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), []))
        except csv.Error:
            return 0
        return len({*_REQUIRED, *_OPTIONAL} & set(header))

    return max(_DELIMITERS, key=known)


def _names(header: Sequence[str]) -> list[str]:
    return [column.strip().lower() for column in header]


def _json_rows(text: str, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        # This parser bounds its depth by itself; the next one would follow any depth down the C stack.
        from_json(text)
        value = json.loads(text, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise FixInput(f"{name}: not JSON ({_first_line(error)})") from error
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise FixInput(f"{name}: a list of objects with {', '.join(_REQUIRED)} belongs here")
    for number, row in enumerate(value, 1):
        _check_columns(list(row), f"{name}, row {number}")
        for column, cell in row.items():
            if cell is not None and (isinstance(cell, bool) or not isinstance(cell, str | int)):
                raise FixInput(f"{name}, row {number}: {column} is neither text nor a whole number")
        yield number, row


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name occurs twice in an object")
    return dict(pairs)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _check_columns(columns: list[str], where: str) -> None:
    asked = f"the columns are {', '.join((*_REQUIRED, *_OPTIONAL))}"
    missing = [column for column in _REQUIRED if column not in columns]
    if missing:
        # What stands there instead may be a row of the list itself.
        raise FixInput(f"{where}: no column {' and no column '.join(missing)}: {asked}")
    unknown = [column or "(empty)" for column in columns if column not in (*_REQUIRED, *_OPTIONAL)]
    repeated = [column for column in dict.fromkeys(columns) if columns.count(column) > 1]
    if unknown or repeated:
        raise FixInput(f"{where}: unknown or repeated: {', '.join(unknown or repeated)}; {asked}")


def _visit(row: Mapping[str, Any], where: str) -> ExpectedVisit:
    values = {name: str(value).strip() for name, value in row.items() if value is not None and str(value).strip()}
    for name in (*_REQUIRED, *_OPTIONAL):
        if name in _REQUIRED and name not in values:
            raise FixInput(f"{where}: {name} is empty")
        if name in values and not is_text(values[name]):
            raise FixInput(f"{where}: {name} is too long or not printable")
    try:
        due = date.fromisoformat(_matched(_DAY, values["due"])) if "due" in values else None
    except ValueError as error:
        raise FixInput(f"{where}: due is a day, YYYY-MM-DD") from error
    try:
        minimum = int(_matched(_COUNT, values.get("minimum_images", "1")))
    except ValueError as error:
        raise FixInput(f"{where}: minimum_images is a number") from error
    return ExpectedVisit(values["subject"], values["visit"], due, values.get("site"), values.get("modality"), minimum)


def _matched(form: re.Pattern[str], text: str) -> str:
    if not form.fullmatch(text):
        raise ValueError(f"not {form.pattern}")
    return text
