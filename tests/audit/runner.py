"""A process that audits made-up images and dies on its way. Run by the tests of interruptions.

    runner.py WORKBOOK IMAGES [die-at-statement N | measure]

Prints what the audit came to, or how much memory one of that many images took. Exit code: 0, or -9 where it died.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from ledger.audit.completeness import conclude, findings, rows
from ledger.audit.reconciling import Answer, Find
from ledger.audit.workbook import Source
from ledger.core.manifest import Account
from ledger.core.verdict import CustodyStep, Token
from ledger.store.audit import Workbook
from tests.audit.making import CT, Scan, Simulator, audited, entry, filed, header, scan, scope, source, word

TOKENS = (*[Token.AUTHENTIC] * 20, Token.ALTERED, Token.PENDING, Token.NOT_CHECKED)


def sources(images: int) -> list[Source]:
    """A transmittal of which some images are not there, and a heartbeat that knows of more."""
    entries = [
        entry(number, visit=f"V{number % 7}", status="withheld" if number % 50 == 49 else "sent", origin=(CT, number))
        for number in range(images)
    ]
    made = [entry(f"more {number}", visit="V0", origin=(CT, images + number)) for number in range(3)]
    account = Account(key=CT, first=0, last=images + 5, others=(images + 4,))
    return [source(header(accounts=[account]), entries), source(header("heartbeat"), made)]


def scans(images: int) -> Iterator[Scan]:
    """Most of what is listed, in order or not; some twice, some unlisted, some unreadable."""
    for number in range(images):
        if number % 10 == 3 or number % 50 == 49:
            continue
        step = CustodyStep(
            "received", "received", "CRO", number, (1, 2), word("step", number), finding="gap" if number % 9 else None
        )
        token = TOKENS[number % len(TOKENS)]
        yield scan(
            f"{number:06d}.dcm", number, token, origin=(CT, number), custody=(step,), is_read=token is not Token.NOT_CHECKED
        )
        if number % 40 == 0:
            yield scan(f"{number:06d} again.dcm", number, origin=(CT, number))
        if number % 60 == 0:
            yield scan(f"{number:06d} unlisted.dcm", "unlisted", Token.UNREGISTERED)


def outcome(book: Workbook) -> dict[str, Any]:
    """Everything that a workbook shows."""
    result = conclude(book, scope(), 0, 0)
    return {
        "result": repr(result),
        "rows": [repr(row) for row in rows(book)],
        "findings": [repr(finding) for finding in findings(book, scope())],
    }


class _Forgetful(Simulator):
    """An examiner that does not count, so that what grows is the audit's."""

    def _answer(self, image: Scan, find: Find) -> Answer:
        self.examined.clear()
        return super()._answer(image, find)


def measured(path: Path, images: int) -> dict[str, Any]:
    """An audit in which everything is in order, and its memory."""
    start = time.monotonic()
    # Written to disk first, entry by entry: the tests' own list must not be what is measured.
    listed = (entry(number, visit=f"V{number % 20}", origin=(CT, number)) for number in range(images))
    steps = tuple(CustodyStep(name, name, "CT", 5, (1, 2), word(name)) for name in ("sealed", "received", "stored"))
    there = (scan(f"{number:07d}.dcm", number, origin=(CT, number), custody=steps) for number in range(images))
    book = audited(path, [filed(path.with_suffix(".jsonl"), header(), listed)], there, _Forgetful())
    result = conclude(book, scope(), 0, 0)
    shown = sum(1 for _ in rows(book))
    book.close()
    # Of this program alone: what getrusage says begins with the size of the process that it was forked from.
    status = Path("/proc/self/status").read_text()
    peak_kb = int(status.split("VmHWM:")[1].split()[0])
    took = round(time.monotonic() - start, 1)
    return {"token": result.token, "present": result.present, "rows": shown, "peak_kb": peak_kb, "seconds": took}


def main(path: str, images: str, fault: str = "", number: str = "") -> int:
    if fault == "measure":
        sys.stdout.write(json.dumps(measured(Path(path), int(images))))
        return 0
    if fault:
        statements = count()

        def before(*_: Any) -> None:
            if next(statements) == int(number):
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(Engine, "before_cursor_execute", before)
        event.listen(Engine, "commit", before)
    examiner = Simulator()
    book = audited(Path(path), sources(int(images)), scans(int(images)), examiner)
    sys.stdout.write(json.dumps(outcome(book) | {"examined": len(examiner.examined)}))
    book.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
