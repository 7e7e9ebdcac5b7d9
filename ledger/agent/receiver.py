"""Receiving from a modality: a C-STORE SCP that answers when the image is on disk, and a C-ECHO SCP.

pynetdicom speaks the protocol. Data sets go to disk as they come, unread, so that a large one takes no memory and what is
forwarded is byte for byte what was received (PS3.8, PS3.7 Annex C for the statuses).
"""

from __future__ import annotations

import logging
import socket
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydicom.uid import UID, AllTransferSyntaxes
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]

from ledger.agent.spool import Spool, SpoolFull
from ledger.core.errors import FixInput, NeedPermission, TryLater

LOG = logging.getLogger(__name__)

SUCCESS: Final = 0x0000
OUT_OF_RESOURCES: Final = 0xA700
"""PS3.4 Table B.2-1: Refused: Out of Resources."""
NOT_AUTHORISED: Final = 0x0124
"""PS3.7 Annex C.5.10: Refused: Not Authorized."""
NOT_RECOGNISED: Final = (0x01, 0x01, 0x03)
"""PS3.8 §9.3.4: rejected for good, by the user of the service, calling AE title not recognised."""
LIMIT_EXCEEDED: Final = (0x02, 0x03, 0x02)
"""Rejected for now, by the provider, local limit exceeded."""

_config.STORE_RECV_CHUNKED_DATASET = True
_config.UNRESTRICTED_STORAGE_SERVICE = True


@dataclass(frozen=True)
class Peer:
    """Who may send: an AE title, from an address; None for any."""

    ae_title: str | None = None
    address: str | None = None

    def admits(self, ae_title: str, address: str) -> bool:
        return self.ae_title in (None, ae_title) and self.address in (None, address)


@dataclass(frozen=True)
class Listener:
    """Where a source listens, and to whom. `limit` associations at once; a silent one is ended after `idle_s`."""

    source: str
    host: str
    port: int
    ae_title: str
    allow: tuple[Peer, ...]
    forward: bool
    tls: ssl.SSLContext | None = None
    limit: int = 64
    idle_s: float = 60.0
    maximum_pdu: int = 1 << 17
    reporters: tuple[Peer, ...] = ()
    """Who may associate to report on storage commitment, and store nothing."""


Refused = Callable[[str, str], None]
"""Told of every refusal: source, and a word of why."""
CommitmentHandler = Callable[[Any], tuple[int, Any]]


def without_delay(event: Any) -> None:
    """Sends small packets at once (Nagle's algorithm waits for the peer's delayed acknowledgement, 40 ms an image), and reads
    large ones in large pieces, where pynetdicom asks the system for 4,096 bytes at a time."""
    connection = event.assoc.dul.socket
    connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def recv(size: int) -> bytearray:
        read = bytearray(size)
        view, filled = memoryview(read), 0
        while filled < size:
            got = connection.socket.recv_into(view[filled:])
            if not got:
                return bytearray(view[:filled])
            filled += got
        return read

    connection.recv = recv


class Receiver:
    """One listening socket. `start` and `stop` once each."""

    def __init__(
        self, listener: Listener, spool: Spool, refused: Refused, commitment: dict[Any, CommitmentHandler] | None = None
    ) -> None:
        self._listener, self._spool, self._refused, self._commitment = listener, spool, refused, commitment or {}
        self._server: Any = None

    def start(self) -> int:
        """Listens; the port (of the system's choosing where 0 was asked for). Raises FixInput, NeedPermission."""
        tempfile.tempdir = str(self._spool.incoming)
        entity = AE(ae_title=self._listener.ae_title)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(UID(context.abstract_syntax or ""), list(AllTransferSyntaxes))
        entity.add_supported_context(Verification)
        if self._commitment:
            entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        entity.require_called_aet = True
        entity.maximum_pdu_size = self._listener.maximum_pdu
        entity.maximum_associations = self._listener.limit
        entity.network_timeout = self._listener.idle_s
        entity.acse_timeout = min(30.0, self._listener.idle_s)
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, without_delay),
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_C_STORE, self._store),
            *self._commitment.items(),
        ]
        address = (self._listener.host, self._listener.port)
        try:
            self._server = entity.start_server(address, block=False, evt_handlers=handlers, ssl_context=self._listener.tls)
        except PermissionError as error:
            raise NeedPermission(f"{self._listener.source}: may not listen on port {address[1]} ({error.strerror})") from error
        except OSError as error:
            raise FixInput(f"{self._listener.source}: cannot listen on {address[0]}:{address[1]} ({error.strerror})") from error
        return int(self._server.socket.getsockname()[1])

    def stop(self) -> None:
        """Takes no new associations, and aborts those that are open: what was not answered is sent again."""
        if self._server is not None:
            self._server.shutdown()
            for association in self._server.active_associations:
                association.abort()
            self._server = None

    # ---- what the protocol asks ----

    def _requested(self, event: Any) -> None:
        requestor = event.assoc.requestor
        calling = str(requestor.primitive.calling_ae_title).strip()
        if not any(peer.admits(calling, requestor.address) for peer in (*self._listener.allow, *self._listener.reporters)):
            self._reject(event, NOT_RECOGNISED, "not allowed")
            return
        try:
            self._spool.check_room()
        except SpoolFull:
            self._reject(event, LIMIT_EXCEEDED, "spool full")

    def _reject(self, event: Any, why: tuple[int, int, int], word: str) -> None:
        self._refused(self._listener.source, word)
        event.assoc.acse.send_reject(*why)

    def _store(self, event: Any) -> int:
        """The answer is given when the image cannot be lost any more."""
        source = self._listener.source
        requestor = event.assoc.requestor
        if not any(peer.admits(requestor.ae_title.strip(), requestor.address) for peer in self._listener.allow):
            self._refused(source, "not allowed")
            return NOT_AUTHORISED
        try:
            self._spool.check_room()
            self._spool.take(Path(event.dataset_path), source, forward=self._listener.forward)
        except TryLater as error:
            self._refused(source, "spool full" if isinstance(error, SpoolFull) else "spool not writable")
            LOG.error("refused an image", extra={"source": source, "reason": str(error)})
            return OUT_OF_RESOURCES
        self._spool.step("answered")
        return SUCCESS
