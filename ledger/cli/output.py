"""What a person or a program sees: tables and progress on a terminal, JSON on request, one line for an error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ledger.core.verdict import CustodyStep, Token, Verdict


class _Console(Console):
    """Leaves with 141 (as SIGPIPE does) where the reader has gone: 1 would mean that an image is not in order."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141)


_LAST_SECOND = 253402300799
"""Of the year 9999."""

OUT = _Console(highlight=False, soft_wrap=True)
ERR = _Console(stderr=True, highlight=False, soft_wrap=True)

STYLES = {
    Token.AUTHENTIC: "green",
    Token.DERIVED: "green",
    Token.PENDING: "cyan",
    Token.DECLARED_SYNTHETIC: "magenta",
    Token.UNREGISTERED: "yellow",
    Token.NOT_CHECKED: "yellow",
}
"""Everything else is red."""


def plain(text: str) -> str:
    """Text from outside as one line without control characters, safe for a terminal and for this console's markup."""
    return escape("".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text))


def styled(token: Token) -> str:
    style = STYLES.get(token, "bold red")
    return f"[{style}]{token}[/{style}]"


def moment(time: int | None) -> str:
    """A time for people: `2026-01-31 12:00:00 UTC`. A claimed time may lie beyond the calendar, and is shown as its end."""
    return "not proven" if time is None else _utc(time).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(time: int | None) -> str | None:
    """A time for programs (RFC 3339)."""
    return None if time is None else _utc(time).strftime("%Y-%m-%dT%H:%M:%SZ")


def _utc(time: int) -> datetime:
    return datetime.fromtimestamp(min(time, _LAST_SECOND), UTC)


def write_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def table(*columns: str, title: str | None = None) -> Table:
    made = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


@contextmanager
def progress(what: str, total: int | None, *, quiet: bool) -> Iterator[Any]:
    """A progress bar on standard error, only where a person watches; yields a callable that takes how many are done."""
    if quiet or not ERR.is_terminal:
        yield lambda done: None  # noqa: ARG005
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=ERR, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def verdict_json(path: str, verdict: Verdict, detector: dict[str, Any] | None = None) -> dict[str, Any]:
    """One image of `scanseal verify --json`, with the detector's opinion where it was asked; `verify.schema.json` describes
    it."""
    lower, upper = verdict.sealed_between
    return {
        "path": path,
        "verdict": str(verdict.token),
        "exit_code": verdict.exit_code,
        "reasons": list(verdict.reasons),
        "device": verdict.device,
        "sealed_between": None if upper is None else [iso(lower), iso(upper)],
        "checks": {axis: {"status": check.status, "detail": check.detail} for axis, check in verdict.checks.items()},
        "record_id": None if verdict.record_id is None else "0x" + verdict.record_id.hex(),
        "block": verdict.block,
        "as_of": iso(verdict.as_of),
        "differing": list(verdict.differing),
        "generator": verdict.generator,
        "custody": custody_json(verdict.custody),
        "changed_regions": [
            {"frame": tile.frame, "x": tile.x, "y": tile.y, "width": tile.width, "height": tile.height}
            for tile in verdict.regions
        ],
        "detector": {"assessment": "NOT_RUN"} if detector is None else detector,
    }


def custody_json(steps: Iterable[CustodyStep]) -> list[dict[str, Any]]:
    """The steps of an image's custody, its first record first."""
    return [
        {
            "action": step.action,
            "operation": step.operation,
            "by": step.by,
            "claimed_time": iso(step.claimed_time),
            "between": None if step.between[1] is None else [iso(step.between[0]), iso(step.between[1])],
            "record_id": None if step.record_id is None else "0x" + step.record_id.hex(),
            "parents": ["0x" + parent.hex() for parent in step.parents],
            "changed": list(step.changed),
            "statement": None if step.statement is None else json.loads(step.statement),
            "meaning": step.meaning,
            "finding": step.finding,
            "detail": step.detail,
        }
        for step in steps
    ]
