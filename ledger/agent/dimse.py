"""DIMSE messages and their PDUs as bytes: what both ends of an association need. PS3.7 §6.3 and §9.3, PS3.8 §9.3."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

RQ, AC, RJ, DATA, RELEASE_RQ, RELEASE_RP, ABORT = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07
"""PDU types."""
HEADER: Final = struct.Struct(">BBI")
PDV: Final = struct.Struct(">IBB")
IS_COMMAND, IS_LAST = 0x01, 0x02

VERIFICATION: Final = "1.2.840.10008.1.1"
COMMITMENT: Final = "1.2.840.10008.1.20.1"
IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"

C_STORE, C_ECHO, N_EVENT_REPORT, N_ACTION = 0x0001, 0x0030, 0x0100, 0x0130
RESPONSE: Final = 0x8000
NO_DATA_SET, DATA_SET = 0x0101, 0x0001

SUCCESS: Final = 0x0000
OUT_OF_RESOURCES: Final = 0xA700
"""PS3.4 Table B.2-1: Refused: Out of Resources."""
NOT_AUTHORISED: Final = 0x0124
NO_SUCH_CLASS: Final = 0x0122
INVALID_INSTANCE: Final = 0x0117
UNRECOGNISED: Final = 0x0211
"""PS3.7 Annex C."""

_UID = re.compile(r"[0-9.]{1,64}")


class Malformed(ValueError):
    """Bytes that are no message."""


@dataclass(frozen=True)
class Command:
    """The members of a command set that matter here; 0 and "" where it has none."""

    field: int
    message: int
    answered: int
    status: int
    sop_class: str
    instance: str
    has_data_set: bool
    action: int
    """Action Type ID, or Event Type ID."""

    @classmethod
    def parse(cls, data: bytes) -> Command:
        """Raises Malformed."""
        numbers: dict[int, int] = {}
        texts: dict[int, str] = {}
        pos = 0
        while pos < len(data):
            if len(data) - pos < 8:
                raise Malformed("a command set that is cut off")
            group, number, length = struct.unpack_from("<HHI", data, pos)
            value = data[pos + 8 : pos + 8 + length]
            pos += 8 + length
            if group or len(value) != length:
                raise Malformed("a command set with another group, or cut off")
            if number in _TEXTS:
                texts[number] = value.rstrip(b"\0 ").decode("latin-1")
            elif length == 2:
                numbers[number] = int.from_bytes(value, "little")
        if 0x0100 not in numbers or 0x0800 not in numbers:
            raise Malformed("a command set without a command")
        return cls(
            numbers[0x0100],
            numbers.get(0x0110, 0),
            numbers.get(0x0120, 0),
            numbers.get(0x0900, 0xFFFF),
            texts.get(0x0002) or texts.get(0x0003, ""),
            texts.get(0x1000) or texts.get(0x1001, ""),
            numbers[0x0800] != NO_DATA_SET,
            numbers.get(0x1008, numbers.get(0x1002, 0)),
        )


_TEXTS: Final = frozenset((0x0002, 0x0003, 0x1000, 0x1001))


def command(elements: dict[int, bytes]) -> bytes:
    """A command set, element number -> value, implicit VR little endian."""
    body = b"".join(struct.pack("<HHI", 0, number, len(value)) + value for number, value in sorted(elements.items()))
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def us(value: int) -> bytes:
    return struct.pack("<H", value)


def ui(value: str) -> bytes:
    raw = value.encode("ascii")
    return raw + b"\0" * (len(raw) % 2)


def is_uid(value: str) -> bool:
    """Whether it can stand where a UID belongs: peers have been seen with leading zeros, so no more is asked."""
    return _UID.fullmatch(value) is not None


def answer(asked: Command, status: int) -> bytes:
    """The command set that answers a request."""
    elements = {0x0100: us(asked.field | RESPONSE), 0x0120: us(asked.message), 0x0800: us(NO_DATA_SET), 0x0900: us(status)}
    if is_uid(asked.sop_class):
        elements[0x0002] = ui(asked.sop_class)
    if is_uid(asked.instance):
        elements[0x1000] = ui(asked.instance)
    if asked.field in (N_ACTION, N_EVENT_REPORT):
        elements[0x1008 if asked.field == N_ACTION else 0x1002] = us(asked.action)
    return command(elements)


def pdus(context: int, header: int, data: memoryview, maximum: int) -> Iterator[bytes | memoryview]:
    """P-DATA-TF PDUs with one PDV each (PS3.8 §9.3.5): what stands before a fragment, then the fragment itself. `header` is
    IS_COMMAND or 0."""
    size = maximum - 6
    for start in range(0, len(data), size):
        part = data[start : start + size]
        last = IS_LAST if start + size >= len(data) else 0
        yield HEADER.pack(DATA, 0, len(part) + 6) + PDV.pack(len(part) + 2, context, header | last)
        yield part


def file_meta(sop_class: str, instance: str, transfer_syntax: str, sender: str, implementation: str) -> bytes:
    """Preamble, prefix and file meta information (PS3.10 §7.1) of a data set that was received."""
    elements = (
        (0x0001, b"OB", b"\0\1"),
        (0x0002, b"UI", ui(sop_class)),
        (0x0003, b"UI", ui(instance)),
        (0x0010, b"UI", ui(transfer_syntax)),
        (0x0012, b"UI", ui(implementation)),
        (0x0016, b"AE", _even(sender.encode("ascii", "replace")[:16])),
    )
    body = b"".join(_explicit(*one) for one in elements)
    return b"\0" * 128 + b"DICM" + _explicit(0, b"UL", struct.pack("<I", len(body))) + body


def _explicit(number: int, vr: bytes, value: bytes) -> bytes:
    if vr == b"OB":
        return struct.pack("<HH2sHI", 2, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", 2, number, vr, len(value)) + value


def _even(value: bytes) -> bytes:
    return value + b" " * (len(value) % 2)
