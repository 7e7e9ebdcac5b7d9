"""The Image Pixel module (PS3.3 §C.7.6.3): as `px1` needs it, what a stored value is and everything that makes it refuse; and
as it is written, which `cs1` and `raw1` bind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from ledger.core.errors import Refused, Unreadable
from ledger.core.pixels import NO_PALETTE, Kind, Photometric, PixelHeader, Samples, palette_hash
from ledger.core.stored_pixels import MODULE, Written, module_hash
from ledger.dicom.elements import PIXEL_DATA, Element, Encoding
from ledger.dicom.values import PHOTOMETRIC, PIXEL_REPRESENTATION, TEXT_VRS, ascii_text, lut_descriptor, lut_entries

FLOAT_PIXEL_DATA: Final = 0x7FE00008
DOUBLE_PIXEL_DATA: Final = 0x7FE00009
PIXEL_ELEMENTS: Final = (PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA)
EXTENDED_OFFSETS: Final = 0x7FE00001
EXTENDED_LENGTHS: Final = 0x7FE00002
LOSSY: Final = 0x00282110
_FRAMES: Final = 0x00280008
_NUMBERS: Final = {
    0x00280002: "SamplesPerPixel",
    0x00280006: "PlanarConfiguration",
    0x00280010: "Rows",
    0x00280011: "Columns",
    0x00280100: "BitsAllocated",
    0x00280101: "BitsStored",
    0x00280102: "HighBit",
    PIXEL_REPRESENTATION: "PixelRepresentation",
}
_TAGS: Final = {name: tag for tag, name in _NUMBERS.items()}
_PALETTE: Final = ((0x00281101, 0x00281201), (0x00281102, 0x00281202), (0x00281103, 0x00281203))
_SEGMENTED: Final = (0x00281221, 0x00281222, 0x00281223)

_MODULE: Final = dict(
    zip(
        (
            *(_TAGS["SamplesPerPixel"], PHOTOMETRIC, _TAGS["PlanarConfiguration"], _FRAMES),
            *(_TAGS[name] for name in MODULE[4:10]),
            *(descriptor for descriptor, _ in _PALETTE),
            *(entries for _, entries in _PALETTE),
            *(*_SEGMENTED, EXTENDED_OFFSETS, EXTENDED_LENGTHS),
        ),
        MODULE,
        strict=True,
    )
)
_NOT_IN_CS1: Final = frozenset(("PlanarConfiguration", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"))
_NUMBER_VRS: Final = (b"US", b"UN", b"")

WANTED: Final = frozenset((*_MODULE, *PIXEL_ELEMENTS, LOSSY))
"""The tags that this module and the digests need."""

_CLASSES: Final = {
    "MONOCHROME1": Photometric.MONOCHROME1,
    "MONOCHROME2": Photometric.MONOCHROME2,
    "PALETTE COLOR": Photometric.PALETTE_COLOR,
    "RGB": Photometric.RGB,
    "YBR_RCT": Photometric.RGB,
    "YBR_FULL": Photometric.YBR_FULL,
    "YBR_FULL_422": Photometric.YBR_FULL,
}
_COLOUR: Final = frozenset((Photometric.RGB, Photometric.YBR_FULL))


@dataclass(frozen=True)
class PixelModule:
    """One object's pixel description: the `bits_stored` low bits of a cell of `bits_allocated` bits are the value."""

    photometric: str
    samples: int
    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    planar: bool
    is_float: bool

    def header(self, palette: bytes) -> PixelHeader:
        """What `px1` hashes beside the samples. A decoder that undoes the irreversible YBR_ICT gives RGB."""
        if self.is_float:
            width, kind = self.bits_allocated // 8, Kind.FLOAT
        else:
            width = 1 if self.bits_stored <= 8 else 2 if self.bits_stored <= 16 else 4
            kind = Kind.SIGNED if self.signed else Kind.UNSIGNED
        photometric = Photometric.RGB if self.photometric == "YBR_ICT" else _CLASSES[self.photometric]
        return PixelHeader(kind, photometric, width, self.samples, self.rows, self.columns, self.frames, palette)


class PixelReader:
    """Reads the pixel description from the elements of one object. Every method raises Refused with the reason."""

    def __init__(self, data: bytes, found: Mapping[int, Element], encoding: Encoding) -> None:
        self._data = data
        self._found = found
        self._encoding = encoding

    def module_hash(self, kind: str, hash_name: str) -> bytes:
        """The hash of the module as written, for `kind` cs1 or raw1 (FORMAT.md §1.3). Never refuses."""
        written: list[Written | None] = []
        for tag, name in _MODULE.items():
            element = self._found.get(tag)
            value = b"" if element is None else self._data[element.start : element.end]
            if tag in (PHOTOMETRIC, _FRAMES):
                value = value.rstrip(b" \0").lstrip(b" ")
            bound = element is not None and value and not (kind == "cs1" and name in _NOT_IN_CS1)
            written.append(Written(element.vr or b"\0\0", value) if element is not None and bound else None)
        return module_hash(written, hash_name)

    @property
    def frames(self) -> int:
        """NumberOfFrames, 1 when it is missing."""
        text = self._text("NumberOfFrames", _FRAMES)
        if not text:
            return 1
        digits = text.removeprefix("+")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 10 and 0 < int(digits) < 1 << 32):
            raise Refused("NumberOfFrames is not a positive number")
        return int(digits)

    @property
    def is_marked_lossy(self) -> bool:
        """Whether LossyImageCompression is `01`."""
        return ascii_text(self._data, self._found.get(LOSSY)) == "01"

    def module(self, *, lossy: bool = False) -> PixelModule:
        """The description. `lossy` is for what a decoder makes of a lossy codestream: there YBR_ICT is allowed."""
        is_float = PIXEL_DATA not in self._found
        photometric = self._text("PhotometricInterpretation", PHOTOMETRIC)
        if photometric not in _CLASSES and not (lossy and photometric == "YBR_ICT"):
            raise Refused(f"PhotometricInterpretation {photometric[:16]!r}")
        colour = _CLASSES.get(photometric, Photometric.RGB) in _COLOUR
        samples, rows, columns, allocated = (self._number(n) for n in ("SamplesPerPixel", "Rows", "Columns", "BitsAllocated"))
        if samples != (3 if colour else 1):
            raise Refused(f"SamplesPerPixel {samples} with PhotometricInterpretation {photometric}")
        if not rows or not columns:
            raise Refused(f"{rows} rows and {columns} columns")
        if is_float:
            stored, high, representation = allocated, allocated - 1, 0
            if allocated != (32 if FLOAT_PIXEL_DATA in self._found else 64):
                raise Refused(f"BitsAllocated {allocated} with float pixel data")
        else:
            stored, high, representation = (self._number(n) for n in ("BitsStored", "HighBit", "PixelRepresentation"))
        if allocated not in (1, 8, 16, 32) and not is_float:
            raise Refused(f"BitsAllocated {allocated}")
        if not 0 < stored <= allocated:
            raise Refused(f"BitsStored {stored} with BitsAllocated {allocated}")
        if high != stored - 1:
            raise Refused(f"HighBit {high} with BitsStored {stored}")
        if representation > 1 or (allocated == 1 and (representation or samples != 1)):
            raise Refused(f"PixelRepresentation {representation} with BitsAllocated {allocated}")
        planar = self._number("PlanarConfiguration", 0) if samples > 1 else 0
        if planar > 1:
            raise Refused(f"PlanarConfiguration {planar}")
        return PixelModule(
            photometric, samples, rows, columns, self.frames, allocated, stored, representation == 1, planar == 1, is_float
        )

    def palette(self, module: PixelModule, hash_name: str) -> bytes:
        """The palette's hash, zeros unless PALETTE COLOR."""
        if module.photometric != "PALETTE COLOR":
            return NO_PALETTE
        if any(tag in self._found for tag in _SEGMENTED):
            raise Refused("a segmented palette")
        channels: list[tuple[int, int, Samples]] = []
        for descriptor_tag, entries_tag in _PALETTE:
            if descriptor_tag not in self._found or entries_tag not in self._found:
                raise Refused("PALETTE COLOR without a palette")
            try:
                numbers = lut_descriptor(self._data, self._found[descriptor_tag], self._encoding, module.signed)
                if numbers is None or numbers[2] not in (8, 16):
                    raise Refused("a palette descriptor that does not say 8 or 16 bits")
                entries = lut_entries(self._data, self._found[entries_tag], numbers[0], self._encoding)
            except Unreadable as error:
                raise Refused(str(error)) from error
            channels.append((numbers[1], numbers[2], np.frombuffer(entries, "<u2")))
        return palette_hash(channels, hash_name)

    def _text(self, name: str, tag: int) -> str:
        element = self._found.get(tag)
        if element is not None and element.vr not in TEXT_VRS:
            raise Refused(f"{name} has VR {element.vr.decode('latin-1')}")
        return ascii_text(self._data, element)

    def _number(self, name: str, default: int | None = None) -> int:
        element = self._found.get(_TAGS[name])
        if element is None or element.start == element.end:
            if default is None:
                raise Refused(f"{name} is missing")
            return default
        if element.vr not in _NUMBER_VRS:
            raise Refused(f"{name} has VR {element.vr.decode('latin-1')}")
        if element.end - element.start != 2:
            raise Refused(f"{name} has {element.end - element.start} bytes, not 2")
        return int.from_bytes(self._data[element.start : element.end], "big" if self._encoding.big_endian else "little")
