"""Pixel digests of what is stored: `cs1` hashes the codestreams of a lossy source, `raw1` an element's. FORMAT.md §1.3, §1.4.

Both bind the Image Pixel module as it is written beside them, for the same bytes are another picture under another module.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from ledger.core import merkle
from ledger.core.errors import FixInput
from ledger.core.pixels import Buffer, PixelDigest, hash_of

FAMILIES: Final = ("JPEG", "JPEGLS", "JPEG2000", "HTJ2K", "VIDEO")
MODULE: Final = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)
"""The elements that `module_hash` binds, in its order: the Image Pixel module (PS3.3 §C.7.6.3) and NumberOfFrames."""


class Written(NamedTuple):
    """An element of the Image Pixel module as it is written: its VR (two bytes, zeros when implicit) and its value's bytes."""

    vr: bytes
    value: bytes


def module_hash(elements: Sequence[Written | None], hash_name: str = "sha256") -> bytes:
    """The 32 bytes that stand for the Image Pixel module as written, FORMAT.md §1.3; `elements` in MODULE's order, None when
    missing or empty. Raises FixInput for another number of elements, or a VR that has not two bytes."""
    if len(elements) != len(MODULE):
        raise FixInput(f"{len(elements)} elements of the Image Pixel module, not {len(MODULE)}")
    message = bytearray(b"scanseal/module\0")
    for element in elements:
        if element is None:
            message += b"\0"
            continue
        if len(element.vr) != 2:
            raise FixInput(f"a VR of {len(element.vr)} bytes")
        message += b"\1" + element.vr + struct.pack("<I", len(element.value)) + element.value
    return hash_of(hash_name)(message)


def cs1(family: str, codestreams: Iterable[Buffer], module: bytes, hash_name: str = "sha256") -> PixelDigest:
    """The `cs1` digest of each frame's codestream (already joined and stripped), FORMAT.md §1.3; `family` is in FAMILIES and
    `module` the `module_hash` of the elements that count under cs1."""
    if family not in FAMILIES:
        raise FixInput(f"unknown codestream family {family!r}: use {', '.join(FAMILIES)}")
    leaves = tuple(merkle.leaf_hash(struct.pack("<Q", len(stream)) + bytes(stream), hash_name) for stream in codestreams)
    if not leaves:
        raise FixInput("no codestream")
    _check_module(module)
    head = b"scanseal/cs1\0" + family.encode() + b"\0" + struct.pack("<I", len(leaves))
    digest = hash_of(hash_name)(head + module + merkle.root_of(leaves, hash_name))
    return PixelDigest(f"cs1-{hash_name}", digest, frames=leaves)


def raw1(
    transfer_syntax: str, element: tuple[int, bytes, bool], module: bytes, value: Buffer, hash_name: str = "sha256"
) -> PixelDigest:
    """The `raw1` digest of a pixel element's value bytes as stored, FORMAT.md §1.4: `element` is its tag, its VR (two bytes,
    zeros when implicit) and whether its length is undefined, `module` the `module_hash` of all elements."""
    tag, vr, undefined = element
    _check_module(module)
    if len(vr) != 2:
        raise FixInput(f"a VR of {len(vr)} bytes")
    head = b"scanseal/raw1\0" + transfer_syntax.encode("ascii") + b"\0"
    message = b"".join((head, struct.pack("<I", tag), vr, bytes([undefined]), module, value))
    return PixelDigest(f"raw1-{hash_name}", hash_of(hash_name)(message))


def _check_module(module: bytes) -> None:
    if len(module) != 32:
        raise FixInput(f"a hash of the Image Pixel module of {len(module)} bytes, not 32")
