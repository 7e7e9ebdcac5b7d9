"""Sending on to the PACS: the received bytes, again and again until they were taken.

What a PACS answers never loses an image: a success or a warning (PS3.4 Table B.2-1) is `sent`, anything else waits and is tried
again, ever more seldom. Sending twice after a crash does no harm: the instance is the same.
"""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from pydicom.uid import UID

from ledger.agent.association import Association, Context, Peer
from ledger.agent.dimse import IMPLICIT_LITTLE, VERIFICATION
from ledger.agent.spool import Spool, backoff, now, reason
from ledger.core.errors import ScanSealError, TryLater, Unreadable
from ledger.dicom.elements import read_meta
from ledger.store.spool import Spooled

BATCH: Final = 64
CONTEXTS: Final = 128
"""Of one association, PS3.8 §9.3.2.2."""
NOTE_AFTER_S: Final = 0.2
META_LIMIT: Final = 1 << 16
"""Bytes within which the file meta information ends."""
RENEW_S: Final = 300.0
"""How long one is used: what the PACS takes is asked anew with the next."""
IDLE_S: Final = 5.0
"""How long an association without work is kept."""


class Forwarder:
    """Sends what the spool holds for one destination, on a thread of its own. Of several that share the work each has its own
    association and, by `share` (which, of how many), its own files."""

    def __init__(
        self,
        destination: Peer,
        sources: Iterable[str],
        spool: Spool,
        say: Callable[[str, str], None],
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self._destination, self._sources, self._spool, self._say = destination, frozenset(sources), spool, say
        self._share = share
        self._stop, self.wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"forward to {destination.name}", daemon=True)
        self._association: Association | None = None
        self._since = 0.0
        self._wanted: frozenset[Context] = frozenset()
        self._taken: dict[int, float] = {}
        """Files that the PACS took and the book does not know it of yet, with the time."""
        self.last_error: str | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends after the image that is being sent."""
        self._stop.set()
        self.wake.set()
        self._thread.join(self._destination.timeout_s)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            self.wake.clear()
            try:
                if self._send():
                    failures = 0
                    continue
                self._note()
                if not self.wake.wait(IDLE_S):
                    self._release()
            except Exception as error:  # noqa: BLE001 - whatever happens to one image, others come
                failures += 1
                self.last_error = reason(error)
                self._say(f"forward to {self._destination.name}", self.last_error)
                self._release()
                self._stop.wait(min(30.0, 0.5 * 2 ** min(failures, 6)))
        try:
            self._note()
        except ScanSealError as error:
            self._say(f"forward to {self._destination.name}", str(error))
        self._release()

    def _send(self) -> bool:
        """Sends what may be sent now; whether there was anything. Raises TryLater where the PACS is out of reach."""
        files = self._spool.book.to_forward(self._sources, now(), BATCH + len(self._taken), self._share)
        files = [file for file in files if file.number not in self._taken]
        for file in files:
            if self._stop.is_set():
                break
            if self._sent(file):
                self._taken[file.number] = time.monotonic()
                self._spool.step("taken by the PACS")
            if self._taken and time.monotonic() - next(iter(self._taken.values())) > NOTE_AFTER_S:
                self._note()
        return bool(files)

    def _note(self) -> None:
        if self._taken:
            self._spool.book.note_forwarded(list(self._taken))
            self._spool.step("noted as sent")
            self._taken.clear()

    def _sent(self, file: Spooled) -> bool:
        """Whether the PACS took it; False where it, or the file, is not as it should be: then it is tried again later."""
        destination = self._destination
        try:
            with self._spool.path(file).open("rb") as opened:
                # Not closed by hand: what was not sent of a broken transfer points into it while its error is on the way.
                data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
            meta = read_meta(data[:META_LIMIT])
            if meta is None or not meta.storage_class or not meta.instance or meta.offset >= len(data):
                raise Unreadable("it has no file meta information, or nothing else")
            context = (meta.storage_class, meta.transfer_syntax)
            association = self._ready(context)
            if context not in association.accepted:
                why = f"{destination.name} does not take {_named(context[0])} in {_named(context[1])}"
                return self._postpone(file, why)
            self._spool.step("before sending")
            status = self._answered(association, file, context, meta.instance, memoryview(data)[meta.offset :])
        except FileNotFoundError:
            return self._postpone(file, "a file cannot be sent: it is not in the spool any more")
        except (Unreadable, ValueError):
            # It will not become one: it is kept for somebody to look at, and nothing waits for it.
            self._spool.book.note_unsendable(file.number)
            return False
        if status == 0 or 0xB000 <= status <= 0xBFFF:
            self.last_error = None
            return True
        if 0xA700 <= status <= 0xA7FF:
            self._let_others_go_first(file)
            raise TryLater(f"{destination.name} is out of resources (status 0x{status:04X})")
        return self._postpone(file, f"{destination.name} refused an image with status 0x{status:04X}")

    def _answered(self, association: Association, file: Spooled, context: Context, instance: str, data_set: memoryview) -> int:
        """The status. Raises TryLater where there is none."""
        try:
            return association.store(context, instance, data_set)
        except TryLater:
            self._let_others_go_first(file)
            raise

    def _let_others_go_first(self, file: Spooled) -> None:
        """It may be the PACS, or this image: one on which a PACS breaks off must not hold up all that come after it."""
        self._spool.book.postpone_forward({file.number: backoff(file.forward_attempts + 1, 300.0)})

    def _postpone(self, file: Spooled, why: str) -> bool:
        self.last_error = why
        self._say(f"forward to {self._destination.name}", why)
        self._spool.book.postpone_forward({file.number: backoff(file.forward_attempts, 3600.0)})
        return False

    # ---- the association ----

    def _ready(self, context: Context) -> Association:
        """An association in which this SOP class and transfer syntax was asked for."""
        is_young = time.monotonic() - self._since < RENEW_S
        if self._association is not None and self._association.is_open and context in self._wanted and is_young:
            return self._association
        self._release()
        wanted = self._wanted | {context}
        self._wanted = wanted if len(wanted) <= CONTEXTS else frozenset((context,))
        self._association, self._since = Association(self._destination, sorted(self._wanted)), time.monotonic()
        return self._association

    def _release(self) -> None:
        if self._association is not None:
            self._association.release()
            self._association = None


def _named(uid: str) -> str:
    """A UID's name in the standard. One that has none may be anything that a file says, and is not shown."""
    name = UID(uid).name
    return "something that the standard does not name" if name == uid else name


def echo(destination: Peer) -> None:
    """Raises TryLater where the PACS does not answer a C-ECHO with success."""
    association = Association(destination, [(VERIFICATION, IMPLICIT_LITTLE)])
    try:
        if (VERIFICATION, IMPLICIT_LITTLE) not in association.accepted:
            raise TryLater(f"{destination.name} does not take C-ECHO")
        status = association.echo()
        if status:
            raise TryLater(f"{destination.name} answers C-ECHO with status 0x{status:04X}")
    finally:
        association.release()
