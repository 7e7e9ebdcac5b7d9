"""The spool: what was received, on disk before anybody is told so.

The order of a reception (docs/agent.md numbers all steps of the agent): the file's bytes are complete in `incoming/` (1) and on
disk (2); it is renamed into the spool (3), whose folder is on disk (4); its row is committed (5); only then the sender is
answered. A crash leaves one of three things, each with one repair at the next start: a file in `incoming/`, that nobody was
told of, is removed; a file without a row gets one; a row whose file is gone is an alarm.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ledger.core.errors import NeedPermission, ScanSealError, TryLater
from ledger.store.spool import Spooled, SpoolStore

Steps = Callable[[str], None]
"""Told after each numbered step of docs/agent.md, by its name. It does nothing, but in tests, which end the process there."""


class SpoolFull(TryLater):
    """There is less room than the spool is to leave free."""


def nothing(step: str) -> None:
    """What an agent does after a step when nobody asked."""


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


class Spool:
    """A folder of received files, with its book. Threads may share it."""

    def __init__(self, folder: Path, book: SpoolStore, min_free: int, keep_s: float, step: Steps = nothing) -> None:
        self.folder, self.book, self._min_free, self._keep_s, self.step = folder, book, min_free, keep_s, step
        self.incoming = folder / "incoming"
        self.wakes: list[Callable[[], None]] = []
        """Called whenever a file arrived; they don't wait."""
        try:
            self.incoming.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise NeedPermission(f"{folder}: the spool cannot be made ({error.strerror})") from error

    def path(self, file: Spooled) -> Path:
        return self.folder / file.name

    def free(self) -> int:
        """Bytes that are left on the spool's disk."""
        return shutil.disk_usage(self.folder).free

    def check_room(self) -> None:
        """Raises SpoolFull."""
        free = self.free()
        if free < self._min_free:
            least = self._min_free >> 20
            raise SpoolFull(f"{free >> 20} MiB are free for the spool, {least} are to stay free: nothing is taken")

    def part(self) -> Path:
        """A new file in `incoming/`, to be written and given to `take`."""
        return self.incoming / f"{secrets.token_hex(12)}.part"

    def take(self, part: Path, source: str, *, forward: bool, seal: bool = True, name: str | None = None) -> bool:
        """Takes over a file that was written completely; on disk, and noted, when this returns. Whether it was new: one of a
        `name` that is known is not kept twice. Raises TryLater where there is no room: then nothing was taken."""
        self.step("received")
        received, target = now(), self.folder / (name or f"{source}-{secrets.token_hex(12)}.dcm")
        try:
            if name is not None and self.book.knows(name):
                part.unlink()
                return False
            size = part.stat().st_size
            _sync(part)
            self.step("synced")
            part.replace(target)
            self.step("renamed")
            _sync(self.folder)
            self.step("in the folder")
            new = self.book.add(target.name, source, size, received, forward=forward, seal=seal)
        except OSError as error:
            self._forget(part, target, name is None)
            kind = SpoolFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else TryLater
            raise kind(f"the spool cannot take a file ({error.strerror}): nothing was taken") from error
        except ScanSealError:
            self._forget(part, target, name is None)
            raise
        self.step("noted")
        for wake in self.wakes:
            wake()
        return new

    def _forget(self, part: Path, target: Path, is_own: bool) -> None:
        """What was not taken. A file whose name others may have given as well is left to the next try, or start."""
        for path in (part, target) if is_own else (part,):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def recover(self, forwards: Callable[[str], bool | None]) -> tuple[int, list[Spooled]]:
        """Repairs what a crash left, before anybody uses the spool: (files that got a row, rows whose file is gone).
        `forwards` says of a source whether its files are sent on, None for one that is not configured."""
        for part in self.incoming.iterdir():
            part.unlink(missing_ok=True)
        noted = 0
        for path in sorted(self.folder.glob("*.dcm")):
            source = path.name.rpartition("-")[0]
            sends = forwards(source)
            if sends is not None and not self.book.knows(path.name):
                size, received = path.stat().st_size, path.stat().st_mtime_ns // 1000
                noted += self.book.add(path.name, source, size, received, forward=sends, seal=True)
        self.book.hurry()
        lost = [file for file in self.book.kept() if file.is_waiting and not self.path(file).exists()]
        return noted, lost

    def clean(self) -> int:
        """Removes the files that were finished long enough ago. Returns how many; their rows stay and say what became of
        each."""
        self.book.finish(now())
        before = now() - int(self._keep_s * 1e6)
        removed = 0
        while files := self.book.removable(before):
            self.step("finished")
            for file in files:
                self.path(file).unlink(missing_ok=True)
            self.step("removed")
            self.book.note_removed([file.number for file in files])
            removed += len(files)
        return removed


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reason(error: Exception) -> str:
    """Why something failed, without a value of an image or a file's name: our own words, or the system's."""
    if isinstance(error, ScanSealError):
        return str(error)
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


def backoff(attempts: int, longest_s: float = 600.0) -> int:
    """Not before when an attempt is repeated: 1, 2, 4 ... seconds from now, at most `longest_s`."""
    return now() + int(min(longest_s, 2.0 ** min(attempts, 30)) * 1e6)


def due(files: Sequence[Spooled]) -> dict[int, int]:
    """number -> not before, for files that could not be done now."""
    return {file.number: backoff(file.forward_attempts + file.seal_attempts) for file in files}
