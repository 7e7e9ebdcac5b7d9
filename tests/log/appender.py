"""A process that appends one batch and may be told to die or to wait on its way. Run by the tests of crashes and races.

    appender.py DATABASE FIRST COUNT [die POINT | die-at-statement N | meet FOLDER PARTIES | retry]

Exit code: 0 appended (prints the indices), 6 `TryLater`, -9 died.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from simulator import Switched
from sqlalchemy import event

from ledger.core.errors import TryLater
from ledger.log import Log
from ledger.store import LogStore, open_store

ORIGIN = "example.org/log"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = KEY.public_key().public_bytes_raw()


def entry(number: int) -> bytes:
    return number.to_bytes(4, "big") * 88


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(wanted: str) -> Callable[[str], None]:
    return lambda point: die() if point == wanted else None


def meet(folder: Path, parties: int) -> Callable[[str], None]:
    def wait(point: str) -> None:
        if point == "staged":
            (folder / str(os.getpid())).touch()
            while len(list(folder.iterdir())) < parties:
                time.sleep(0.005)

    return wait


def main(database: str, first: int, size: int, fault: str = "", *with_: str) -> int:
    store = open_store(database)
    at: Callable[[str], None] = lambda point: None  # noqa: E731
    if fault == "meet":
        at = meet(Path(with_[0]), int(with_[1]))
    log = Log(Switched(LogStore(store), lambda point: at(point)), ORIGIN, PUBLIC_KEY, KEY.sign)
    if fault == "die":
        at = die_at(with_[0])
    if fault == "die-at-statement":
        statements = count()

        def before(*_: Any) -> None:
            if next(statements) == int(with_[0]):
                die()

        event.listen(store.engine, "before_cursor_execute", before)
        event.listen(store.engine, "commit", before)
    while True:
        try:
            sys.stdout.write(f"{log.append([entry(number) for number in range(first, first + size)])}\n")
            return 0
        except TryLater as error:
            if fault != "retry":
                sys.stdout.write(f"{error}\n")
                return error.exit_code
            time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))
