"""Receiving from a modality: a C-STORE SCP that answers when the image is on disk, and a C-ECHO SCP.

A thread an association, on blocking sockets with deadlines; pynetdicom reads, makes and negotiates what an association begins
with (PS3.8 §9.3). Data sets go to disk as they come, unread: what is forwarded is byte for byte what was received, and a large
one takes no memory. A peer that is silent, slow, loud or confused is cut off, and the others notice nothing (decision 009 says
why not all of it is pynetdicom's).
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.uid import UID, AllTransferSyntaxes
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, AllStoragePresentationContexts, build_context
from pynetdicom.dsutils import decode
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, negotiate_unrestricted

from ledger.agent import dimse
from ledger.agent.dimse import Command, Malformed
from ledger.agent.spool import Spool, SpoolFull
from ledger.core.errors import FixInput, NeedPermission, TryLater

LOG = logging.getLogger(__name__)

NOT_RECOGNISED: Final = (0x01, 0x01, 0x03)
"""PS3.8 §9.3.4: rejected for good, by the user of the service: calling AE title not recognised."""
CALLED_NOT_RECOGNISED: Final = (0x01, 0x01, 0x07)
LIMIT_EXCEEDED: Final = (0x02, 0x03, 0x02)
"""Rejected for now, by the provider: local limit exceeded."""
REQUEST_LIMIT: Final = 1 << 20
COMMAND_LIMIT: Final = 1 << 16
QUESTION_LIMIT: Final = 1 << 22
"""Bytes of an association request, of a command set, of a data set that is no image."""
ROOM_EVERY: Final = 1 << 26
"""Bytes of one data set after which the room is looked at again: it may have no end."""
HANDSHAKE_S: Final = 30.0
LEAVE_S: Final = 5.0


@dataclass(frozen=True)
class Peer:
    """Who may send: an AE title, from an address; None for any."""

    ae_title: str | None = None
    address: str | None = None

    def admits(self, ae_title: str, address: str) -> bool:
        return self.ae_title in (None, ae_title) and self.address in (None, address)


@dataclass(frozen=True)
class Listener:
    """Where a source listens, and to whom. `limit` associations at once; one is ended that is silent, or takes over a single
    PDU, for `idle_s`. `reporters` may associate to report on storage commitment, and store nothing."""

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


Refused = Callable[[str, str], None]
"""Told of every refusal: source, and a word of why."""
Handler = Callable[[Dataset, int], int]
"""Of a question or report on storage commitment and its type; the status."""


class Receiver:
    """One listening socket. `start` and `stop` once each. `handlers` by command field, where storage commitment is taken."""

    def __init__(
        self, listener: Listener, spool: Spool, refused: Refused, handlers: Mapping[int, Handler] | None = None
    ) -> None:
        self.listener, self.spool, self.refused, self.handlers = listener, spool, refused, handlers or {}
        self.contexts = _contexts(bool(self.handlers))
        self.stopping = threading.Event()
        self._socket: socket.socket | None = None
        self._open: dict[int, _Conversation] = {}
        self._lock = threading.Lock()

    def start(self) -> int:
        """Listens; the port (of the system's choosing where 0 was asked for). Raises FixInput, NeedPermission."""
        host, port = self.listener.host, self.listener.port
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family, backlog=256)
        except PermissionError as error:
            raise NeedPermission(f"{self.listener.source}: may not listen on port {port} ({error.strerror})") from error
        except OSError as error:
            raise FixInput(f"{self.listener.source}: cannot listen on {host}:{port} ({error.strerror})") from error
        threading.Thread(target=self._accept, name=f"listen {self.listener.source}", daemon=True).start()
        return int(self._socket.getsockname()[1])

    @property
    def port(self) -> int | None:
        """Where it listens; None where it does not."""
        with suppress(OSError, AttributeError):
            return int(self._socket.getsockname()[1])  # type: ignore[union-attr]
        return None

    def stop(self) -> None:
        """Takes no new associations, and ends those that are open after the image that they are at, within seconds: what was
        not answered is sent again."""
        self.stopping.set()
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
        deadline = time.monotonic() + LEAVE_S
        while self._open and time.monotonic() < deadline:
            for conversation in self._conversations():
                conversation.end_if_idle()
            time.sleep(0.05)
        for conversation in self._conversations():
            conversation.cut()

    def _conversations(self) -> list[_Conversation]:
        with self._lock:
            return list(self._open.values())

    def _accept(self) -> None:
        listening = self._socket
        while listening is not None and not self.stopping.is_set():
            try:
                connection, address = listening.accept()
            except OSError:
                if self.stopping.is_set():
                    return
                time.sleep(0.1)
                continue
            if not self._has_room():
                self.refused(self.listener.source, "too many associations")
                _turn_away(connection, self.listener.tls is not None)
                continue
            conversation = _Conversation(self, connection, str(address[0]))
            with self._lock:
                self._open[id(conversation)] = conversation
            try:
                threading.Thread(target=self._converse, args=(conversation,), name="association", daemon=True).start()
            except RuntimeError:  # the system gives no more threads
                self._forget(conversation)
                self.refused(self.listener.source, "too many associations")

    def _has_room(self) -> bool:
        """Whether one more association may begin. Where all are taken, one that has not been asked for by its peer yet goes:
        the oldest of the address that has the most of them. So connections that say nothing keep nobody out."""
        with self._lock:
            if len(self._open) < self.listener.limit:
                return True
            silent = [one for one in self._open.values() if not one.is_associated]
            if not silent:
                return False
            by_address = Counter(one.address for one in silent)
            goes = max(silent, key=lambda one: by_address[one.address])  # the first, and so the oldest, of equals
            del self._open[id(goes)]
        self.refused(self.listener.source, "displaced before it associated")
        goes.cut()
        return True

    def _forget(self, conversation: _Conversation) -> None:
        conversation.cut()
        with self._lock:
            self._open.pop(id(conversation), None)

    def _converse(self, conversation: _Conversation) -> None:
        try:
            conversation.run()
        except (OSError, Malformed, struct.error):
            self.refused(self.listener.source, "association lost")
        finally:
            self._forget(conversation)


def _turn_away(connection: socket.socket, is_tls: bool) -> None:
    with suppress(OSError):
        if not is_tls:
            connection.settimeout(1.0)
            connection.sendall(_rejection(LIMIT_EXCEEDED))
        connection.shutdown(socket.SHUT_WR)
    connection.close()


def _rejection(why: tuple[int, int, int]) -> bytes:
    return dimse.HEADER.pack(dimse.RJ, 0, 4) + bytes((0, *why))


class _Conversation:
    """One association, from its first byte to its last."""

    def __init__(self, receiver: Receiver, connection: socket.socket, address: str) -> None:
        self._receiver, self._listener, self._spool = receiver, receiver.listener, receiver.spool
        self._connection, self.address = connection, address
        self._contexts: dict[int, tuple[str, str]] = {}
        """id -> SOP class, transfer syntax."""
        self._sender, self._maximum = "", 0
        self._may_store = False
        self.is_associated, self._is_idle = False, True
        self._buffer = bytearray(self._listener.maximum_pdu + 64)

    def run(self) -> None:
        """Until the peer releases, or is cut off. Raises OSError, Malformed."""
        self._connection.settimeout(min(HANDSHAKE_S, self._listener.idle_s))
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._listener.tls is not None:
            self._connection = self._listener.tls.wrap_socket(self._connection, server_side=True)
        if not self._associated():
            return
        self._connection.settimeout(self._listener.idle_s)
        message = _Message(self)
        try:
            while not (self._is_idle and self._receiver.stopping.is_set()):
                kind, length = self._header()
                if kind == dimse.DATA:
                    self._is_idle = False
                    self._take(length, message)
                    if message.is_complete:
                        self._answer(message)
                        message, self._is_idle = _Message(self), True
                elif kind == dimse.RELEASE_RQ:
                    self._read(min(length, 4))
                    self._connection.sendall(dimse.HEADER.pack(dimse.RELEASE_RP, 0, 4) + bytes(4))
                    return
                else:
                    if kind != dimse.ABORT:
                        self._abort()
                    return
            self._abort()
        finally:
            message.drop()

    def end_if_idle(self) -> None:
        """Wakes a conversation that waits for its peer's next message."""
        if self._is_idle:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RD)

    def cut(self) -> None:
        # Closing alone does not end another thread's waiting for the peer.
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            self._connection.close()

    def _abort(self) -> None:
        with suppress(OSError):
            self._connection.sendall(dimse.HEADER.pack(dimse.ABORT, 0, 4) + bytes((0, 0, 2, 0)))

    # ---- bytes, with deadlines ----

    def _header(self) -> tuple[int, int]:
        kind, _, length = dimse.HEADER.unpack(self._read(6))
        return kind, length

    def _read(self, size: int, deadline: float | None = None) -> memoryview:
        """Exactly so many bytes, in this conversation's buffer. Raises OSError, Malformed where the peer ends before."""
        if size > len(self._buffer):
            raise Malformed("more than a PDU may have")
        view, filled = memoryview(self._buffer)[:size], 0
        deadline = deadline or time.monotonic() + self._listener.idle_s
        while filled < size:
            got = self._connection.recv_into(view[filled:])
            if not got:
                raise Malformed("the peer ended in the middle")
            filled += got
            if filled < size and time.monotonic() > deadline:
                raise TimeoutError("a peer that is too slow")
        return view

    # ---- the association ----

    def _associated(self) -> bool:
        deadline = time.monotonic() + min(HANDSHAKE_S, self._listener.idle_s)
        kind, _, length = dimse.HEADER.unpack(self._read(6, deadline))
        if kind != dimse.RQ or length > REQUEST_LIMIT:
            self._receiver.refused(self._listener.source, "no association request")
            self._abort()
            return False
        request = bytearray()
        while len(request) < length:
            request += self._read(min(length - len(request), 4096), deadline)
        asked = _decoded(dimse.HEADER.pack(kind, 0, length) + request)
        if asked is None:
            self._receiver.refused(self._listener.source, "malformed association request")
            self._abort()
            return False
        why = self._objection(asked)
        if why is not None:
            self._connection.sendall(_rejection(why))
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_WR)
                self._connection.recv(1)
            return False
        # Before the peer knows: who was told that it may send must not be displaced.
        self.is_associated = True
        self._connection.sendall(self._acceptance(asked))
        return True

    def _objection(self, asked: A_ASSOCIATE) -> tuple[int, int, int] | None:
        listener = self._listener
        self._sender = str(asked.calling_ae_title).strip()
        self._may_store = any(peer.admits(self._sender, self.address) for peer in listener.allow)
        may_report = any(peer.admits(self._sender, self.address) for peer in listener.reporters)
        if str(asked.called_ae_title).strip() != listener.ae_title:
            self._receiver.refused(listener.source, "another AE title was called")
            return CALLED_NOT_RECOGNISED
        if not self._may_store and not may_report:
            self._receiver.refused(listener.source, "not allowed")
            return NOT_RECOGNISED
        try:
            self._spool.check_room()
        except SpoolFull:
            self._receiver.refused(listener.source, "spool full")
            return LIMIT_EXCEEDED
        return None

    def _acceptance(self, asked: A_ASSOCIATE) -> bytes:
        roles = {
            item.sop_class_uid: (item.scu_role, item.scp_role)
            for item in asked.user_information
            if isinstance(item, SCP_SCU_RoleSelectionNegotiation) and item.sop_class_uid is not None
        }
        proposed = asked.presentation_context_definition_list
        accepted, replies = negotiate_unrestricted(proposed, self._receiver.contexts, roles or None)
        for one in accepted:
            if one.result == 0:
                self._contexts[one.context_id or 0] = (str(one.abstract_syntax), str(one.transfer_syntax[0]))
        # 0 is no limit (PS3.8 Annex D.1), and one that leaves no room for a fragment is no length.
        named = int(asked.maximum_length_received or 0)
        self._maximum = min(named, 1 << 20) if named > 64 else 1 << 14
        length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
        length.maximum_length_received = self._listener.maximum_pdu
        implementation.implementation_class_uid = PYNETDICOM_IMPLEMENTATION_UID
        given = A_ASSOCIATE()
        given.application_context_name = UID(dimse.APPLICATION_CONTEXT)
        given.calling_ae_title, given.called_ae_title = asked.calling_ae_title, asked.called_ae_title
        given.result, given.result_source, given.diagnostic = 0x00, 0x01, None
        given.presentation_context_definition_results_list = accepted
        given.user_information = [length, implementation, *replies]
        pdu = A_ASSOCIATE_AC()
        pdu.from_primitive(given)
        return pdu.encode()

    # ---- messages ----

    def _take(self, length: int, message: _Message) -> None:
        """The fragments of one P-DATA-TF."""
        if length > self._listener.maximum_pdu or length < dimse.PDV.size:
            self._abort()
            raise Malformed("a PDU that is longer than was agreed")
        body = self._read(length)
        pos = 0
        while pos < length:
            if length - pos < dimse.PDV.size:
                raise Malformed("a PDU whose fragments do not fill it")
            size, context, header = dimse.PDV.unpack_from(body, pos)
            if size < 2 or size - 2 > length - pos - dimse.PDV.size or context not in self._contexts:
                raise Malformed("a fragment of no context, or longer than its PDU")
            fragment = body[pos + dimse.PDV.size : pos + 4 + size]
            message.add(context, header, fragment)
            pos += 4 + size

    def _answer(self, message: _Message) -> None:
        asked = message.command
        if asked is None:
            raise Malformed("a data set without a command")
        status = self._status(asked, message)
        if not asked.field & dimse.RESPONSE:
            whole = memoryview(dimse.answer(asked, status))
            pieces = dimse.pdus(message.context, dimse.IS_COMMAND, whole, self._maximum)
            self._connection.sendall(b"".join(pieces))
        if asked.field == dimse.C_STORE and status == dimse.SUCCESS:
            self._spool.step("answered")

    def _status(self, asked: Command, message: _Message) -> int:
        if asked.field == dimse.C_ECHO:
            return dimse.SUCCESS
        if asked.field == dimse.C_STORE:
            return self._store(message)
        handler = self._receiver.handlers.get(asked.field)
        if handler is None:
            return dimse.UNRECOGNISED
        syntax = UID(self._contexts[message.context][1])
        try:
            data_set = decode(BytesIO(bytes(message.question)), syntax.is_implicit_VR, syntax.is_little_endian)
        except Exception:  # noqa: BLE001 - whatever a hostile data set makes of the parser
            return 0xC000
        return handler(data_set, asked.action)

    def _store(self, message: _Message) -> int:
        """The answer is given when the image cannot be lost any more."""
        if message.refusal is not None or message.part is None:
            return message.refusal or 0xC000
        part, message.part = message.part, None
        try:
            self._spool.check_room()
            self._spool.take(part, self._listener.source, forward=self._listener.forward)
        except TryLater as error:
            part.unlink(missing_ok=True)
            word = "spool full" if isinstance(error, SpoolFull) else "spool not writable"
            self._receiver.refused(self._listener.source, word)
            LOG.error("refused an image", extra={"source": self._listener.source, "reason": str(error)})
            return dimse.OUT_OF_RESOURCES
        return dimse.SUCCESS

    def check_room(self) -> None:
        """Raises SpoolFull."""
        self._spool.check_room()

    def begun(self, asked: Command, context: int) -> tuple[Path | None, int | None, int | None]:
        """(file, its descriptor, None) for the data set of a C-STORE; the status where it is not taken: it is read and thrown
        away, since the peer is answered after it."""
        sop_class, syntax = self._contexts[context]
        if not self._may_store:
            self._receiver.refused(self._listener.source, "not allowed")
            return None, None, dimse.NOT_AUTHORISED
        if asked.sop_class != sop_class or not dimse.is_uid(sop_class):
            return None, None, dimse.NO_SUCH_CLASS
        if not dimse.is_uid(asked.instance):
            return None, None, dimse.INVALID_INSTANCE
        part = self._spool.part()
        meta = dimse.file_meta(sop_class, asked.instance, syntax, self._sender, PYNETDICOM_IMPLEMENTATION_UID)
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError:
            self._receiver.refused(self._listener.source, "spool not writable")
            return None, None, dimse.OUT_OF_RESOURCES
        try:
            os.write(descriptor, meta)
        except OSError:
            os.close(descriptor)
            part.unlink(missing_ok=True)
            self._receiver.refused(self._listener.source, "spool not writable")
            return None, None, dimse.OUT_OF_RESOURCES
        return part, descriptor, None


class _Message:
    """A message while its fragments come."""

    def __init__(self, conversation: _Conversation) -> None:
        self._conversation = conversation
        self._bytes = bytearray()
        self._descriptor: int | None = None
        self._size = 0
        self.command: Command | None = None
        self.context = 0
        self.part: Path | None = None
        self.refusal: int | None = None
        self.question = bytearray()
        self.is_complete = False

    def add(self, context: int, header: int, fragment: memoryview) -> None:
        """Raises Malformed."""
        if self.is_complete or (self.context and context != self.context):
            raise Malformed("a message between the fragments of another")
        self.context = context
        if header & dimse.IS_COMMAND:
            self._add_command(header, fragment)
        elif self.command is None:
            raise Malformed("a data set before its command")
        else:
            self._add_data(fragment)
            if header & dimse.IS_LAST:
                self._close()
                self.is_complete = True
                if not self._size:
                    self.drop()  # an empty data set is no image

    def _add_command(self, header: int, fragment: memoryview) -> None:
        self._bytes += fragment
        if self.command is not None or len(self._bytes) > COMMAND_LIMIT:
            raise Malformed("a command set without end")
        if header & dimse.IS_LAST:
            self.command = Command.parse(bytes(self._bytes))
            self.is_complete = not self.command.has_data_set
            if self.command.field == dimse.C_STORE and self.command.has_data_set:
                self.part, self._descriptor, self.refusal = self._conversation.begun(self.command, self.context)

    def _add_data(self, fragment: memoryview) -> None:
        before, self._size = self._size, self._size + len(fragment)
        if self._descriptor is not None:
            try:
                if before // ROOM_EVERY != self._size // ROOM_EVERY:
                    self._conversation.check_room()
                while fragment:
                    fragment = fragment[os.write(self._descriptor, fragment) :]
            except (OSError, SpoolFull):
                self.drop()
                self.refusal = dimse.OUT_OF_RESOURCES
        elif self.command is not None and self.command.field != dimse.C_STORE:
            self.question += fragment
            if len(self.question) > QUESTION_LIMIT:
                raise Malformed("a question without end")

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def drop(self) -> None:
        """Forgets what was received of it."""
        self._close()
        if self.part is not None:
            self.part.unlink(missing_ok=True)
            self.part = None


def _contexts(takes_commitment: bool) -> list[PresentationContext]:
    contexts = [build_context(one.abstract_syntax or "", list(AllTransferSyntaxes)) for one in AllStoragePresentationContexts]
    contexts.append(build_context(dimse.VERIFICATION))
    if takes_commitment:
        commitment = build_context(dimse.COMMITMENT)
        commitment.scu_role = commitment.scp_role = True
        contexts.append(commitment)
    return contexts


def _decoded(request: bytes) -> Any:
    pdu = A_ASSOCIATE_RQ()
    try:
        pdu.decode(request)
        return pdu.to_primitive()
    except Exception:  # noqa: BLE001 - whatever a hostile request makes of the parser
        return None
