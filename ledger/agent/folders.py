"""Watching a folder that a modality exports to: files that nobody writes to any more go into the spool."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ledger.agent.spool import Spool, reason


@dataclass(frozen=True)
class Folder:
    """A watched folder and those in it. A file is taken when size and time were the same for `settle_s`; then it is left
    there, or removed where `remove` says so (once it is in the spool)."""

    source: str
    path: Path
    forward: bool
    settle_s: float = 5.0
    remove: bool = False


class Watcher:
    """Looks again and again, on a thread of its own: events of the system are lost on network folders, a look is not."""

    def __init__(self, folder: Folder, spool: Spool, say: Callable[[str, str], None]) -> None:
        self._folder, self._spool, self._say = folder, spool, say
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch {folder.source}", daemon=True)
        self._seen: dict[Path, tuple[int, int, float]] = {}
        self._taken: set[str] = set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
                self._say(f"receive {self._folder.source}", "")
            except Exception as error:  # noqa: BLE001 - whatever a strange file does, the next look comes
                self._say(f"receive {self._folder.source}", reason(error))
            self._stop.wait(max(0.2, min(2.0, self._folder.settle_s / 2)))

    def look(self) -> int:
        """One look over the folder. Returns how many files were taken. Raises OSError (the first of a file, when all were
        looked at), TryLater."""
        found: dict[Path, tuple[int, int, float]] = {}
        taken = 0
        error: OSError | None = None
        for path in sorted(self._folder.path.rglob("*")):
            if self._stop.is_set():
                break
            try:
                if path.name.startswith(".") or path.is_symlink() or not path.is_file():
                    continue
                status = path.stat()
                size, changed, since = self._seen.get(path, (-1, -1, 0.0))
                if (size, changed) != (status.st_size, status.st_mtime_ns):
                    since = time.monotonic()
                self._seen[path] = found[path] = (status.st_size, status.st_mtime_ns, since)
                if time.monotonic() - since >= self._folder.settle_s and status.st_size:
                    taken += self._take(path, status.st_size, status.st_mtime_ns)
            except FileNotFoundError:  # the modality renames and removes what it likes
                continue
            except OSError as one:
                error = error or one
        self._seen = found
        if error is not None:
            raise error
        return taken

    def _take(self, path: Path, size: int, changed: int) -> bool:
        """Copies a file into the spool, once: its name there is made of where it lay, its size and its time."""
        place = f"{path.relative_to(self._folder.path)}\0{size}\0{changed}"
        digest = hashlib.blake2b(place.encode("utf-8", "surrogateescape"), digest_size=12)
        name = f"{self._folder.source}-{digest.hexdigest()}.dcm"
        new = False
        if name not in self._taken:
            if not self._spool.book.knows(name):
                self._spool.check_room()
                part = self._spool.part()
                try:
                    shutil.copyfile(path, part)
                    is_whole = part.stat().st_size == size
                except OSError:
                    part.unlink(missing_ok=True)
                    raise
                if not is_whole:
                    part.unlink()
                    return False
                new = self._spool.take(part, self._folder.source, forward=self._folder.forward, name=name)
            self._taken.add(name)
        if self._folder.remove:
            path.unlink(missing_ok=True)
        return new
