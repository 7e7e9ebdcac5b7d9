"""The custody timeline as a picture: shapes in a plane, for whoever draws them. Nothing in it is told by colour alone."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log10
from typing import Final, Literal

from ledger.audit.report.text import moment, shown
from ledger.audit.report.words import Words
from ledger.audit.result import Step

WIDTH: Final = 760.0
ROWS_A_PICTURE: Final = 12
_LEFT, _RIGHT, _TOP, _ROW = 256.0, 652.0, 98.0, 46.0
"""Where the axis of time starts and ends, the first row begins, and a row's height. All in the picture's own units."""
_TICK_DISTANCE, _TICK_LANES = 74.0, 2
_LABEL, _SMALL_LABEL = 33, 41
"""Columns of ordinary letters in a row's two labels."""
_DAY: Final = 86400
_CLAIMED: Final = 6.5

Role = Literal["band", "axis", "grid", "bracket", "open", "claimed", "finding", "outline"]
TextRole = Literal["strong", "plain", "small", "finding"]


@dataclass(frozen=True)
class Line:
    points: tuple[tuple[float, float], ...]
    role: Role


@dataclass(frozen=True)
class Area:
    points: tuple[tuple[float, float], ...]
    role: Role


@dataclass(frozen=True)
class Label:
    x: float
    y: float
    text: str
    role: TextRole
    anchor: Literal["start", "middle", "end"] = "start"


Shape = Line | Area | Label


@dataclass(frozen=True)
class Drawing:
    """A picture of `WIDTH` by `height` units, the origin at the upper left; `title` and `text` say it in words."""

    name: str
    title: str
    text: str
    height: float
    shapes: tuple[Shape, ...]


class _Axis:
    """Times from left to right, their order exact, their distances compressed: logarithms of the intervals count."""

    def __init__(self, steps: Sequence[Step]) -> None:
        times = {time for step in steps for time in (step.claimed, *step.between) if time is not None}
        self._times = sorted(times)
        places = [0.0]
        for before, after in zip(self._times, self._times[1:], strict=False):
            interval = after - before
            places.append(places[-1] + 0.6 + log10(1 + interval) + 4 * log10(1 + interval / _DAY))
        width = _RIGHT - _LEFT - 48
        scale = width / places[-1] if places[-1] else 0.0
        offset = _LEFT + 24 if scale else (_LEFT + _RIGHT) / 2
        self._places = {time: offset + place * scale for time, place in zip(self._times, places, strict=True)}

    def x(self, time: int) -> float:
        return self._places[time]

    def ticks(self) -> Iterator[tuple[float, int, str]]:
        """The first time of each day, where one of the lanes has room: (place, lane, day)."""
        last_x, last_day = [-_TICK_DISTANCE] * _TICK_LANES, ""
        for time in self._times:
            day, x = moment(time, "")[:10], self._places[time]
            lane = next((lane for lane, last in enumerate(last_x) if x - last >= _TICK_DISTANCE), None)
            if day != last_day and lane is not None:
                yield x, lane, day
                last_x[lane], last_day = x, day


def timeline(steps: Sequence[tuple[int, Step]], words: Words) -> tuple[Drawing, ...]:
    """The numbered steps in pictures of at most `ROWS_A_PICTURE` rows, all on one axis of time."""
    if not steps:
        return ()
    axis = _Axis([step for _, step in steps])
    chunks = [steps[start : start + ROWS_A_PICTURE] for start in range(0, len(steps), ROWS_A_PICTURE)]
    drawings = []
    for part, chunk in enumerate(chunks, 1):
        shapes = [*_legend(words)]
        bottom = _TOP + _ROW * len(chunk)
        for x, lane, day in axis.ticks():
            y = _TOP - 12 - 15 * lane
            shapes += [Line(((x, y + 4), (x, bottom)), "grid"), Label(x, y, day, "small", "middle")]
        for place, (number, step) in enumerate(chunk):
            shapes += _row(_TOP + _ROW * place, number, step, axis, words)
        title = words("timeline.picture", part=part, parts=len(chunks))
        text = words("timeline.described", first=chunk[0][0], last=chunk[-1][0])
        drawings.append(Drawing(f"timeline-{part}", title, text, bottom + 8, tuple(shapes)))
    return tuple(drawings)


def _legend(words: Words) -> Iterator[Shape]:
    y = 14.0
    yield _diamond(11, y)
    yield Label(26, y + 4, words("timeline.legend_claimed"), "small")
    yield from _bracket(256, 290, y, is_open_left=False, is_open_right=False)
    yield Label(298, y + 4, f"[ {words('timeline.legend_after')} · ] {words('timeline.legend_before')}", "small")
    yield from _bracket(256, 290, y + 25, is_open_left=False, is_open_right=True)
    yield Label(298, y + 29, words("timeline.legend_open"), "small")
    yield from _mark("content", 11, y + 25)
    yield Label(26, y + 29, words("timeline.legend_finding"), "small")


def _row(top: float, number: int, step: Step, axis: _Axis, words: Words) -> Iterator[Shape]:
    middle = top + _ROW / 2
    if step.finding:
        yield Area(_box(2, top + 2, WIDTH - 2, top + _ROW - 2), "band")
    yield Line(((_LEFT, top + _ROW), (_RIGHT, top + _ROW)), "axis")
    images = f" ×{words.number(step.count)}" if step.count > 1 else ""
    yield Label(10, middle - 3, _cut(f"{number}. {action(step.action, words)}", _LABEL - len(images)) + images, "strong")
    yield Label(10, middle + 13, _cut(step.by, _SMALL_LABEL), "small")
    after, before = step.between
    left = _LEFT if after is None else axis.x(after)
    right = _RIGHT if before is None else axis.x(before)
    yield from _bracket(min(left, right), max(left, right), middle, is_open_left=after is None, is_open_right=before is None)
    yield _diamond(axis.x(step.claimed), middle)
    if step.finding:
        yield from _mark(step.finding, _RIGHT + 16, middle)
        for place, line in enumerate(finding(step.finding, words).split(" ", 1)):
            yield Label(_RIGHT + 30, middle + (4 if place == 0 else 17), line, "finding" if place == 0 else "small")


def action(name: str, words: Words) -> str:
    """What was done, in a word of the language where there is one."""
    return words(f"actions.{name}") if words.has(f"actions.{name}") else shown(name, 40)


def finding(word: str | None, words: Words) -> str:
    if word is None:
        return words("timeline.no_finding")
    return words(f"findings.{word}") if words.has(f"findings.{word}") else shown(word.upper(), 40)


def _bracket(left: float, right: float, y: float, *, is_open_left: bool, is_open_right: bool) -> Iterator[Shape]:
    """A bar between two block times, at least so wide that its ends are seen; an open end is dashed and has no stop."""
    if right - left < 8:
        left, right = (left + right) / 2 - 4, (left + right) / 2 + 4
    solid_left = left + min(60.0, (right - left) / 2) if is_open_left else left
    solid_right = right - min(60.0, (right - left) / 2) if is_open_right else right
    if solid_left < solid_right:
        yield Area(_box(solid_left, y - 3, solid_right, y + 3), "bracket")
    if is_open_left:
        yield Line(((left, y), (solid_left, y)), "open")
    else:
        yield Line(((left + 4, y - 9), (left, y - 9), (left, y + 9), (left + 4, y + 9)), "bracket")
    if is_open_right:
        yield Line(((solid_right, y), (right, y)), "open")
    else:
        yield Line(((right - 4, y - 9), (right, y - 9), (right, y + 9), (right - 4, y + 9)), "bracket")


def _diamond(x: float, y: float) -> Shape:
    size = _CLAIMED
    return Area(((x, y - size), (x + size, y), (x, y + size), (x - size, y)), "claimed")


def _mark(word: str, x: float, y: float) -> Iterator[Shape]:
    """A shape of its own for each finding."""
    if word == "gap":
        yield Line(((x - 9, y), (x - 3, y)), "finding")
        yield Line(((x + 3, y), (x + 9, y)), "finding")
        yield Line(((x - 3, y - 7), (x - 3, y + 7)), "finding")
        yield Line(((x + 3, y - 7), (x + 3, y + 7)), "finding")
    elif word == "fork":
        yield Line(((x - 9, y), (x - 1, y), (x + 8, y - 7)), "finding")
        yield Line(((x - 1, y), (x + 8, y + 7)), "finding")
    elif word == "role":
        yield Line((*_box(x - 7, y - 7, x + 7, y + 7), (x - 7, y - 7)), "finding")
        yield Line(((x - 7, y + 7), (x + 7, y - 7)), "finding")
    elif word == "time":
        yield Line(((x - 7, y - 8), (x + 7, y - 8), (x - 7, y + 8), (x + 7, y + 8), (x - 7, y - 8)), "finding")
    else:
        yield Line(((x, y - 8), (x + 9, y + 7), (x - 9, y + 7), (x, y - 8)), "finding")
        yield Line(((x, y - 3), (x, y + 3)), "finding")


def _box(left: float, top: float, right: float, bottom: float) -> tuple[tuple[float, float], ...]:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def _cut(text: str, width: int) -> str:
    """What fits into so many columns of ordinary letters: wide ones count twice, capitals one and a half times."""
    fit, used = "", 0.0
    for character in shown(text):
        used += 2 if unicodedata.east_asian_width(character) in "WF" else 1.3 if character.isupper() else 1
        if used > width:
            return fit + "…"
        fit += character
    return fit
