"""DICOM objects for tests, built byte by byte: nothing here reads, and nothing here uses pydicom."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

LONG_VRS = ("OB", "OD", "OF", "OW", "SQ", "UN", "UT")
EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
RLE, JPEGLS, J2K, BASELINE = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.50"

TAGS = {
    "SOPClassUID": (0x00080016, "UI"),
    "SOPInstanceUID": (0x00080018, "UI"),
    "PatientName": (0x00100010, "PN"),
    "PatientID": (0x00100020, "LO"),
    "SamplesPerPixel": (0x00280002, "US"),
    "PhotometricInterpretation": (0x00280004, "CS"),
    "PlanarConfiguration": (0x00280006, "US"),
    "NumberOfFrames": (0x00280008, "IS"),
    "Rows": (0x00280010, "US"),
    "Columns": (0x00280011, "US"),
    "BitsAllocated": (0x00280100, "US"),
    "BitsStored": (0x00280101, "US"),
    "HighBit": (0x00280102, "US"),
    "PixelRepresentation": (0x00280103, "US"),
    "PixelData": (0x7FE00010, "OW"),
    "FloatPixelData": (0x7FE00008, "OF"),
}


def element(tag: int, vr: str, value: bytes | str | int, *, syntax: str = EXPLICIT, length: int | None = None) -> bytes:
    """One encoded element; `length` overrides the length that is written."""
    order = ">" if syntax == BIG else "<"
    if isinstance(value, int):
        value = struct.pack(order + "H", value)
    elif isinstance(value, str):
        value = value.encode("latin-1")
    if len(value) % 2:
        value += b"\0" if vr in ("UI", "OB", "OW") else b" "
    size = len(value) if length is None else length
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if syntax == IMPLICIT:
        head += struct.pack("<I", size)
    elif vr in LONG_VRS:
        head += vr.encode() + b"\0\0" + struct.pack(order + "I", size)
    else:
        head += vr.encode() + struct.pack(order + "H", size)
    return head + value


def meta(syntax: str = EXPLICIT) -> bytes:
    """Preamble and file meta information."""
    inner = element(0x00020010, "UI", syntax)
    return bytes(128) + b"DICM" + element(0x00020000, "UL", struct.pack("<I", len(inner))) + inner


def item(content: bytes, *, undefined: bool = False) -> bytes:
    """One item of a sequence."""
    if undefined:
        return b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + content + b"\xfe\xff\x0d\xe0\0\0\0\0"
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(content)) + content


def encapsulated(*fragments: bytes, table: bytes = b"") -> bytes:
    """A pixel element of undefined length: offset table, fragments, delimiter."""
    padded = [fragment + b"\0" * (len(fragment) % 2) for fragment in fragments]
    value = b"".join(map(item, (table, *padded))) + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return element(0x7FE00010, "OB", b"", length=0xFFFFFFFF) + value


def pixels(rows: int, columns: int, value: bytes, **changes: Any) -> dict[str, Any]:
    """The fields of a one-frame 8-bit MONOCHROME2 image, with changes; None leaves a field out."""
    fields: dict[str, Any] = {
        "SOPInstanceUID": "1.2.3",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": value,
    }
    return {**fields, **changes}


def made(fields: Mapping[str, Any], *, syntax: str = EXPLICIT, extra: Mapping[int, bytes] | None = None) -> bytes:
    """A whole object; `extra` maps tags to encoded elements that are put in order among the others."""
    elements = {
        TAGS[name][0]: value
        if name == "PixelData" and isinstance(value, bytes) and value[:4] == b"\xe0\x7f\x10\x00"
        else element(TAGS[name][0], TAGS[name][1], value, syntax=syntax)
        for name, value in fields.items()
        if value is not None
    }
    elements.update(extra or {})
    return meta(syntax) + b"".join(elements[tag] for tag in sorted(elements))


JPEG_END = b"\xff\xd9"


def segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def jpeg(
    frame: int = 0xC3, *, low: int = 0, predictor: int = 1, extra: bytes = b"", components: int = 1, factor: int = 0x11
) -> bytes:
    """A JPEG without real entropy-coded data: enough for its headers."""
    parts = b"".join(bytes([c + 1, factor if c == 0 else 0x11, 0]) for c in range(components))
    head = segment(frame, struct.pack(">BHHB", 8, 40, 36, components) + parts)
    scan = bytes([components]) + b"".join(bytes([c + 1, 0]) for c in range(components)) + bytes([predictor, 0, low])
    return b"\xff\xd8" + extra + head + segment(0xDA, scan) + b"\x12\xff\x00\x34" + JPEG_END
