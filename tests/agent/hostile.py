"""A peer that does what no peer should: PDUs written by hand (PS3.8 §9.3), on a socket of its own."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count

CT, VERIFICATION = b"1.2.840.10008.5.1.4.1.1.2", b"1.2.840.10008.1.1"
EXPLICIT = b"1.2.840.10008.1.2.1"


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def pdu(kind: int, body: bytes, declared: int | None = None) -> bytes:
    return struct.pack(">BBI", kind, 0, len(body) if declared is None else declared) + body


def request(
    calling: bytes = b"STORESCU", called: bytes = b"SCANSEAL", contexts: tuple[bytes, ...] = (CT,), more: bytes = b""
) -> bytes:
    """A-ASSOCIATE-RQ; context ids 1, 3, 5 ..."""
    items = item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, one in zip(count(1, 2), contexts, strict=False):
        items += item(0x20, struct.pack(">BBBB", number, 0, 0, 0) + item(0x30, one) + item(0x40, EXPLICIT))
    items += item(0x50, item(0x51, struct.pack(">I", 16_384)) + item(0x52, b"1.2.3")) + more
    head = struct.pack(">HH16s16s32s", 1, 0, called.ljust(16), calling.ljust(16), b"")
    return pdu(0x01, head + items)


def command(field: int = 1, sop_class: bytes = CT, instance: bytes = b"1.2.3.4", data_set: int = 1) -> bytes:
    elements = ((2, _even(sop_class)), (0x100, _us(field)), (0x110, _us(1)), (0x700, _us(0)), (0x800, _us(data_set)))
    body = b"".join(
        struct.pack("<HHI", 0, number, len(value)) + value for number, value in (*elements, (0x1000, _even(instance)))
    )
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def fragment(body: bytes, header: int, context: int = 1) -> bytes:
    """A P-DATA-TF with one PDV. `header`: 1 for a command, 2 for the last."""
    return pdu(0x04, struct.pack(">IBB", len(body) + 2, context, header) + body)


def _even(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)


def _us(value: int) -> bytes:
    return struct.pack("<H", value)


class Hostile:
    """A connection. `read` gives what comes until the peer ends it or `timeout_s`."""

    def __init__(self, port: int, address: str = "127.0.0.1", timeout_s: float = 5.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s, source_address=(address, 0))

    def send(self, *parts: bytes) -> Hostile:
        with suppress(OSError):
            for part in parts:
                self.socket.sendall(part)
        return self

    def associate(self, **options: object) -> Hostile:
        self.send(request(**options))  # type: ignore[arg-type]
        assert self.kind() == 0x02
        return self

    def kind(self) -> int | None:
        """The type of the next PDU, which is read; None where the connection ended."""
        whole = self.pdu()
        return whole[0] if whole else None

    def pdu(self) -> bytes:
        with suppress(OSError):
            head = self._exactly(6)
            return head + self._exactly(struct.unpack_from(">I", head, 2)[0])
        return b""

    def _exactly(self, size: int) -> bytes:
        read = b""
        while len(read) < size:
            part = self.socket.recv(size - len(read))
            if not part:
                raise OSError("the end")
            read += part
        return read

    def is_cut_off(self, within_s: float = 10.0) -> bool:
        """Whether the other side ends the connection, whatever it says before."""
        self.socket.settimeout(within_s)
        try:
            while self.socket.recv(65_536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def drip(self, data: bytes, stop: Callable[[], bool], every_s: float = 1.0) -> None:
        """One byte at a time."""
        for one in data:
            if stop():
                return
            self.send(bytes((one,)))
            time.sleep(every_s)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Ends it with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
