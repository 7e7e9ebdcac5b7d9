"""Values from outside made fit to be shown: nothing invisible, nothing endless, times in UTC."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Final

SHOWN: Final = 240
"""Characters of a value in a report for people; longer ones are cut in the middle."""
_INVISIBLE: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"))
_LAST_SECOND: Final = 253402300799
_FIRST_SECOND: Final = -62135596800


def visible(text: str) -> str:
    """The text with every control, format, private or unknown character, and every space but U+0020, written as its number: a
    value cannot turn the direction of a line, hide a part of itself, or break out of its line."""
    return "".join(c if c == " " or unicodedata.category(c) not in _INVISIBLE else f"[U+{ord(c):04X}]" for c in text)


def shown(text: str, limit: int = SHOWN) -> str:
    """`visible`, with what is longer than `limit` cut in the middle: both ends of a path tell something."""
    return cut(visible(text), limit)


def cut(text: str, limit: int) -> str:
    """The text, or its ends and how many characters are left out between them."""
    left, over = limit // 2, len(text) - limit
    return f"{text[:left]} [… {over} …] {text[left + over :]}" if over > 0 else text


def moment(time: int | None, otherwise: str) -> str:
    """A time for people, in every language: `2026-01-31 12:00:00`. A claimed time beyond the calendar is shown as its end."""
    return otherwise if time is None else _utc(time).strftime("%Y-%m-%d %H:%M:%S")


def iso(time: int | None) -> str | None:
    """A time for programs (RFC 3339)."""
    return None if time is None else _utc(time).strftime("%Y-%m-%dT%H:%M:%SZ")


def _utc(time: int) -> datetime:
    return datetime.fromtimestamp(max(_FIRST_SECOND, min(time, _LAST_SECOND)), UTC)
