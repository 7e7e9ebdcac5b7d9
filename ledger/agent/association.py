"""A requesting association for C-STORE and C-ECHO, on the caller's own thread. PS3.8 §9.3 (PDUs), PS3.7 §9.3 (messages).

pynetdicom makes and reads the PDUs of the negotiation. Data sets are sent from the file as they are, fragmented by this module:
pynetdicom's own way costs more processor time an image than sealing does.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydicom.uid import UID
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION, build_context
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)

from ledger.agent import dimse
from ledger.core.errors import TryLater

PDU_LIMIT: Final = 1 << 20
"""Bytes of a PDU that a peer may send here: answers are small."""
ANSWER_LIMIT: Final = 16_384
FRAGMENT: Final = 1 << 20
"""Bytes of a PDU where the peer names no limit."""
WRITES: Final = 256

Context = tuple[str, str]
"""SOP class, transfer syntax."""


@dataclass(frozen=True)
class Peer:
    """Whom to associate with, and how long it may take over anything."""

    name: str
    host: str
    port: int
    ae_title: str
    calling_ae_title: str
    tls: ssl.SSLContext | None = None
    timeout_s: float = 60.0


class Association:
    """Established when it is made. Raises TryLater, here and in each method, where the peer is silent, gone or confused: then
    it is closed. Not to be shared between threads."""

    def __init__(self, peer: Peer, contexts: Sequence[Context]) -> None:
        self._peer = peer
        self._message = 0
        self.is_open = False
        try:
            plain = socket.create_connection((peer.host, peer.port), min(10.0, peer.timeout_s))
        except OSError as error:
            raise TryLater(
                f"{peer.name} ({peer.ae_title}) is out of reach ({error.strerror or type(error).__name__})"
            ) from error
        try:
            plain.settimeout(peer.timeout_s)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = plain if peer.tls is None else peer.tls.wrap_socket(plain, server_hostname=peer.host)
            self.accepted, self._maximum = self._negotiated(contexts)
        except (OSError, TryLater) as error:
            plain.close()
            if isinstance(error, TryLater):
                raise
            raise TryLater(f"{peer.name} ({peer.ae_title}) does not associate ({type(error).__name__})") from error
        self.is_open = True

    def echo(self) -> int:
        """The status that the peer answers to a C-ECHO."""
        elements = {0x0002: dimse.ui(dimse.VERIFICATION), 0x0100: dimse.us(dimse.C_ECHO), 0x0800: dimse.us(dimse.NO_DATA_SET)}
        return self._asked(self.accepted[dimse.VERIFICATION, dimse.IMPLICIT_LITTLE], elements, b"")

    def store(self, context: Context, instance: str, data_set: memoryview | bytes) -> int:
        """The status that the peer answers to a C-STORE of this data set."""
        elements = {
            0x0002: dimse.ui(context[0]),
            0x0100: dimse.us(dimse.C_STORE),
            0x0700: dimse.us(0),
            0x0800: dimse.us(dimse.DATA_SET),
            0x1000: dimse.ui(instance),
        }
        return self._asked(self.accepted[context], elements, data_set)

    def release(self) -> None:
        """Ends in order, within seconds; what the peer says to it is of no consequence."""
        if not self.is_open:
            return
        self.is_open = False
        try:
            self._socket.settimeout(3.0)
            self._socket.sendall(dimse.HEADER.pack(dimse.RELEASE_RQ, 0, 4) + bytes(4))
            while self._pdu()[0] not in (dimse.RELEASE_RP, dimse.ABORT):
                pass
        except (OSError, TryLater):
            pass
        finally:
            self._socket.close()

    def close(self) -> None:
        self.is_open = False
        self._socket.close()

    # ---- messages ----

    def _asked(self, context: int, elements: dict[int, bytes], data_set: memoryview | bytes) -> int:
        self._message = self._message % 0xFFFF + 1
        whole = dimse.command(elements | {0x0110: dimse.us(self._message)})
        try:
            self._send(dimse.pdus(context, dimse.IS_COMMAND, memoryview(whole), self._maximum))
            if data_set:
                self._send(dimse.pdus(context, 0, memoryview(data_set), self._maximum))
            return self._status()
        except (OSError, TryLater, ValueError, struct.error) as error:
            self.close()
            if isinstance(error, TryLater):
                raise
            word = "does not answer in time" if isinstance(error, TimeoutError) else "ended the association"
            raise TryLater(f"{self._peer.name} {word} while an image was sent") from error

    def _send(self, pieces: Iterable[bytes | memoryview]) -> None:
        batch: list[bytes | memoryview] = []
        for piece in pieces:
            batch.append(piece)
            if len(batch) == WRITES:
                self._write(batch)
                batch = []
        self._write(batch)

    def _write(self, batch: list[bytes | memoryview]) -> None:
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.sendall(b"".join(batch))
            return
        while batch:
            sent = self._socket.sendmsg(batch)
            while batch and sent >= len(batch[0]):
                sent -= len(batch.pop(0))
            if batch and sent:
                batch[0] = memoryview(batch[0])[sent:]

    def _status(self) -> int:
        """Of the answer to the message that was sent."""
        answer = b""
        while True:
            kind, body = self._pdu()
            if kind != dimse.DATA:
                raise TryLater(f"{self._peer.name} ended the association")
            pos = 0
            while pos + dimse.PDV.size <= len(body):
                length, _, header = dimse.PDV.unpack_from(body, pos)
                if header & dimse.IS_COMMAND:
                    answer += body[pos + dimse.PDV.size : pos + 4 + length]
                    if header & dimse.IS_LAST:
                        return self._status_of(dimse.Command.parse(answer))
                pos += 4 + length
            if len(answer) > ANSWER_LIMIT:
                raise TryLater(f"{self._peer.name} answers without end")

    def _status_of(self, answer: dimse.Command) -> int:
        if answer.answered != self._message:
            raise TryLater(f"{self._peer.name} answers another message than the one that it was sent")
        return answer.status

    # ---- the association ----

    def _negotiated(self, wanted: Sequence[Context]) -> tuple[dict[Context, int], int]:
        """(context -> id, of those that the peer accepts; the largest PDU that it takes)."""
        definitions = []
        for number, (sop_class, syntax) in enumerate(wanted):
            one = build_context(UID(sop_class), UID(syntax))
            one.context_id = 2 * number + 1
            definitions.append(one)
        length, own_class, own_name = (
            MaximumLengthNotification(),
            ImplementationClassUIDNotification(),
            ImplementationVersionNameNotification(),
        )
        length.maximum_length_received = ANSWER_LIMIT
        own_class.implementation_class_uid = PYNETDICOM_IMPLEMENTATION_UID
        own_name.implementation_version_name = PYNETDICOM_IMPLEMENTATION_VERSION
        primitive = A_ASSOCIATE()
        primitive.application_context_name = UID(dimse.APPLICATION_CONTEXT)
        primitive.calling_ae_title = self._peer.calling_ae_title
        primitive.called_ae_title = self._peer.ae_title
        primitive.presentation_context_definition_list = definitions
        primitive.user_information = [length, own_class, own_name]
        request = A_ASSOCIATE_RQ()
        request.from_primitive(primitive)
        self._socket.sendall(request.encode())
        kind, body = self._pdu()
        if kind == dimse.RJ and len(body) >= 4:
            raise TryLater(
                f"{self._peer.name} ({self._peer.ae_title}) rejects the association (result {body[1]}, source {body[2]}, "
                f"reason {body[3]}): does it know the calling AE title {self._peer.calling_ae_title}?"
            )
        if kind != dimse.AC:
            raise TryLater(f"{self._peer.name} ({self._peer.ae_title}) does not associate")
        return self._accepted(body, definitions)

    def _accepted(self, body: bytes, definitions: list[Any]) -> tuple[dict[Context, int], int]:
        answer = A_ASSOCIATE_AC()
        try:
            answer.decode(dimse.HEADER.pack(dimse.AC, 0, len(body)) + body)
            primitive = answer.to_primitive()
            results = {one.context_id: one.result for one in primitive.presentation_context_definition_results_list}
            maximum = int(primitive.maximum_length_received or 0)
        except Exception as error:
            raise TryLater(f"{self._peer.name} answers no association ({type(error).__name__})") from error
        accepted = {
            (str(one.abstract_syntax), str(one.transfer_syntax[0])): one.context_id
            for one in definitions
            if results.get(one.context_id) == 0
        }
        return accepted, max(maximum, 128) if maximum else FRAGMENT

    def _pdu(self) -> tuple[int, bytes]:
        """(type, body) of the next PDU."""
        kind, _, length = dimse.HEADER.unpack(self._read(6))
        if length > PDU_LIMIT:
            raise TryLater(f"{self._peer.name} sends a PDU of {length} bytes")
        return kind, self._read(length)

    def _read(self, size: int) -> bytes:
        read = bytearray()
        while len(read) < size:
            part = self._socket.recv(size - len(read))
            if not part:
                raise TryLater(f"{self._peer.name} ended the association")
            read += part
        return bytes(read)
