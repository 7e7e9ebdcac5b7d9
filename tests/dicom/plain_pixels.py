"""px1 a second time, slowly: written from FORMAT.md §1.2 with lists of integers and hashlib alone."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

PHOTOMETRIC = {"MONOCHROME1": 1, "MONOCHROME2": 2, "PALETTE COLOR": 3, "RGB": 4, "YBR_RCT": 4, "YBR_FULL": 5, "YBR_FULL_422": 5}


def sha256(message: bytes) -> bytes:
    return hashlib.sha256(message).digest()


def tree(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162 §2.1.1, by its recursive definition, over leaf hashes."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + tree(leaves[:split]) + tree(leaves[split:]))


def value_of(cell: int, stored: int, signed: bool) -> int:
    value = cell % (1 << stored)
    return value - (1 << stored) if signed and value >= 1 << (stored - 1) else value


def native_values(element: bytes, module: dict[str, int | str]) -> list[list[int]]:
    """Frames of values, samples interleaved, from little-endian native pixel data."""
    rows, columns, samples = int(module["rows"]), int(module["columns"]), int(module["samples_per_pixel"])
    allocated, stored = int(module["bits_allocated"]), int(module["bits_stored"])
    frames, planar = int(module["number_of_frames"]), int(module["planar_configuration"])
    count = rows * columns
    if allocated == 1:
        cells = [element[bit // 8] >> bit % 8 & 1 for bit in range(count * frames)]
        return [cells[frame * count : (frame + 1) * count] for frame in range(frames)]
    width = allocated // 8
    cells = [int.from_bytes(element[at : at + width], "little") for at in range(0, len(element) - width + 1, width)]
    found = []
    for frame in range(frames):
        if module["photometric_interpretation"] == "YBR_FULL_422":
            part = cells[frame * count * 2 : (frame + 1) * count * 2]
            values = []
            for at in range(0, len(part), 4):
                first, second, blue, red = part[at : at + 4]
                values += [first, blue, red, second, blue, red]
        else:
            part = cells[frame * count * samples : (frame + 1) * count * samples]
            values = [part[s * count + p] for p in range(count) for s in range(samples)] if planar else part
        found.append([value_of(value, stored, bool(module["pixel_representation"])) for value in values])
    return found


def digest(module: dict[str, int | str], frames: Sequence[Sequence[int]], palette: bytes = bytes(32)) -> str:
    """`px1-sha256:<hex>` of frames of integer values."""
    rows, columns, samples = int(module["rows"]), int(module["columns"]), int(module["samples_per_pixel"])
    stored, signed = int(module["bits_stored"]), int(module["pixel_representation"])
    width = 1 if stored <= 8 else 2 if stored <= 16 else 4
    edge = 64 if rows * columns <= 1048576 else 128
    roots = []
    for frame in frames:
        tiles = []
        for top in range(0, rows, edge):
            for left in range(0, columns, edge):
                content = bytearray()
                for y in range(top, min(top + edge, rows)):
                    for x in range(left, min(left + edge, columns)):
                        for sample in range(samples):
                            value = frame[(y * columns + x) * samples + sample]
                            content += value.to_bytes(width, "little", signed=bool(signed))
                tiles.append(sha256(b"\x00" + content))
        roots.append(tree(tiles))
    head = struct.pack(
        "<BBBBIIIB",
        signed,
        PHOTOMETRIC[str(module["photometric_interpretation"])],
        width,
        samples,
        rows,
        columns,
        len(roots),
        {64: 6, 128: 7}[edge],
    )
    whole = tree([sha256(b"\x00" + root) for root in roots])
    return "px1-sha256:" + sha256(b"scanseal/px1\x00" + head + palette + whole).hex()


def palette(channels: Sequence[tuple[int, int, Sequence[int]]]) -> bytes:
    message = b"scanseal/palette\x00"
    for first, bits, entries in channels:
        message += struct.pack("<IiB", len(entries), first, bits) + b"".join(entry.to_bytes(2, "little") for entry in entries)
    return sha256(message)
