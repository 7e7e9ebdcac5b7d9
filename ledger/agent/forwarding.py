"""Sending on to the PACS: a C-STORE SCU that sends the received bytes, again and again until they were taken.

What a PACS answers never loses an image: a success or a warning (PS3.4 Table B.2-1) is `sent`, anything else waits and is tried
again, ever more seldom. Sending twice after a crash does no harm: the instance is the same.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context
from pynetdicom.presentation import PresentationContext

from ledger.agent.spool import Spool, backoff, now
from ledger.core.errors import TryLater
from ledger.store.spool import Spooled

LOG = logging.getLogger(__name__)

BATCH: Final = 64
CONTEXTS: Final = 128
"""Of one association, PS3.8 §9.3.2.2."""
NOTE_AFTER_S: Final = 0.2
IDLE_S: Final = 5.0
"""How long an association without work is kept."""
_config.STORE_SEND_CHUNKED_DATASET = True


@dataclass(frozen=True)
class Destination:
    """A PACS, and how long it may take over one answer."""

    name: str
    host: str
    port: int
    ae_title: str
    calling_ae_title: str
    tls: ssl.SSLContext | None = None
    timeout_s: float = 60.0
    maximum_pdu: int = 1 << 20


class Forwarder:
    """Sends what the spool holds for one destination, on a thread of its own."""

    def __init__(self, destination: Destination, sources: Iterable[str], spool: Spool, say: Callable[[str, str], None]) -> None:
        self._destination, self._sources, self._spool, self._say = destination, frozenset(sources), spool, say
        self._stop, self.wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"forward to {destination.name}", daemon=True)
        self._association: Any = None
        self._open_contexts: frozenset[tuple[str, str]] = frozenset()
        self.last_error: str | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends after the image that is being sent."""
        self._stop.set()
        self.wake.set()
        self._thread.join(self._destination.timeout_s)

    def echo(self) -> None:
        """Raises TryLater where the PACS does not answer a C-ECHO."""
        from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

        association = self._associate([build_context(Verification)])
        try:
            status = association.send_c_echo()
            if not status or status.Status != 0:
                raise TryLater(f"{self._destination.name} does not answer C-ECHO")
        finally:
            association.release()

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            self.wake.clear()
            try:
                files = self._spool.book.to_forward(self._sources, now(), BATCH)
                if files:
                    self._send(files)
                    failures, self.last_error = 0, None
                    continue
            except TryLater as error:
                failures += 1
                self.last_error = str(error)
                self._say("forward", str(error))
                self._close()
                self._stop.wait(min(30.0, 0.5 * 2 ** min(failures, 6)))
                continue
            if not self.wake.wait(IDLE_S):
                self._close()
        self._close()

    def _send(self, files: Sequence[Spooled]) -> None:
        """Raises TryLater where the PACS is out of reach: then nothing is postponed, what was sent is noted."""
        sent: list[int] = []
        noted = time.monotonic()
        try:
            for file in files:
                if self._stop.is_set():
                    break
                if self._sent(file):
                    sent.append(file.number)
                if sent and time.monotonic() - noted > NOTE_AFTER_S:
                    self._note(sent)
                    noted = time.monotonic()
        finally:
            self._note(sent)

    def _note(self, sent: list[int]) -> None:
        if sent:
            self._spool.step("taken by the PACS")
            self._spool.book.note_forwarded(sent)
            self._spool.step("noted as sent")
            sent.clear()

    def _sent(self, file: Spooled) -> bool:
        path = self._spool.path(file)
        try:
            meta = read_file_meta_info(path)
            pair = (str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID))
        except Exception as error:  # noqa: BLE001 - whatever a hostile file makes of the parser
            self._postpone(file, f"its file meta information cannot be read ({type(error).__name__})")
            return False
        association = self._ready(pair)
        if pair not in self._accepted(association):
            self._postpone(file, f"{self._destination.name} does not take SOP class {pair[0]} in transfer syntax {pair[1]}")
            return False
        self._spool.step("before sending")
        try:
            answer = association.send_c_store(path)
        except (ValueError, AttributeError, OSError, RuntimeError) as error:
            self._close()
            raise TryLater(f"{self._destination.name}: the association was lost while sending") from error
        status = getattr(answer, "Status", None)
        if status is None:
            self._close()
            raise TryLater(f"{self._destination.name} did not answer, or ended the association")
        if status == 0 or 0xB000 <= status <= 0xBFFF:
            return True
        if 0xA700 <= status <= 0xA7FF:
            raise TryLater(f"{self._destination.name} is out of resources (status 0x{status:04X})")
        self._postpone(file, f"{self._destination.name} refused it with status 0x{status:04X}")
        return False

    def _postpone(self, file: Spooled, why: str) -> None:
        self.last_error = why
        self._say("forward", why)
        self._spool.book.postpone_forward({file.number: backoff(file.forward_attempts, 3600.0)})

    # ---- the association ----

    def _ready(self, pair: tuple[str, str]) -> Any:
        """An association whose contexts were asked for this SOP class in this transfer syntax."""
        if self._association is not None and self._association.is_established and pair in self._open_contexts:
            return self._association
        known = set(self._open_contexts) | {pair}
        self._close()
        if len(known) > CONTEXTS:
            known = {pair}
        self._association = self._associate([build_context(UID(one), UID(syntax)) for one, syntax in sorted(known)])
        self._open_contexts = frozenset(known)
        return self._association

    def _accepted(self, association: Any) -> set[tuple[str, str]]:
        contexts: list[PresentationContext] = association.accepted_contexts
        return {(str(one.abstract_syntax), str(one.transfer_syntax[0])) for one in contexts}

    def _associate(self, contexts: list[PresentationContext]) -> Any:
        destination = self._destination
        entity = AE(ae_title=destination.calling_ae_title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = destination.timeout_s
        entity.connection_timeout = min(10.0, destination.timeout_s)
        association = entity.associate(
            destination.host,
            destination.port,
            contexts=contexts,
            ae_title=destination.ae_title,
            max_pdu=destination.maximum_pdu,
            tls_args=None if destination.tls is None else (destination.tls, destination.host),
        )
        if not association.is_established:
            word = "rejected the association" if association.is_rejected else "is out of reach"
            raise TryLater(f"{destination.name} ({destination.ae_title}) {word}")
        return association

    def _close(self) -> None:
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None
