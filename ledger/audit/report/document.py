"""A report as blocks, in the order of reading: HTML and PDF are made of the same ones, so that they say the same.

Every text in a block is fit to be shown (`ledger.audit.report.text`), and none is markup: who writes it out escapes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ledger.audit.report.drawing import Drawing

Tone = Literal["good", "bad", "open"]
_GOOD: Final = frozenset(("COMPLETE", "AUTHENTIC", "DERIVED"))
_BAD: Final = frozenset(("WITHHELD", "UNEXPECTED", "INCOMPLETE", "ALTERED", "MISMATCH", "REVOKED", "STRIPPED"))


def tone(token: str) -> Tone:
    """How a token is coloured. The token itself always stands there as a word."""
    return "good" if token in _GOOD else "bad" if token in _BAD else "open"


@dataclass(frozen=True)
class Heading:
    """A section's heading: `level` 2 or 3, and an `anchor` that is unique in the document."""

    level: int
    anchor: str
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Text, with a `lead` in bold before it. A `note` is set apart, an `aside` is small."""

    text: str
    lead: str = ""
    kind: Literal["plain", "note", "aside"] = "plain"


@dataclass(frozen=True)
class Items:
    """A list; an item may lead to an anchor of the document."""

    texts: tuple[str, ...]
    anchors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Banner:
    """The verdict, with what it means and what it does not."""

    token: str
    subject: str
    means: tuple[str, str]
    means_not: tuple[str, str]


@dataclass(frozen=True)
class Figures:
    """Numbers at a glance: (label, number)."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Column:
    """`weight` is its share of the width; a `token` column shows verdicts, a `code` one ids and paths."""

    label: str
    weight: float = 1.0
    kind: Literal["text", "token", "code", "number"] = "text"


@dataclass(frozen=True)
class Table:
    """A table whose column `header` names the row. A cell's lines are separated by newlines. A caption that only repeats the
    heading above it `is_spoken`: for who does not see the page."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    header: int = 0
    is_spoken: bool = False


Block = Heading | Paragraph | Items | Banner | Figures | Table | Drawing


@dataclass(frozen=True)
class Document:
    """A whole report. `time` is the end of the audit (seconds since 1970), so that equal audits give equal files."""

    lang: str
    title: str
    heading: str
    page: str
    software: str
    time: int
    blocks: tuple[Block, ...]
