"""One DICOM image: strictly read, its bound attributes and its pixel digests. FORMAT.md §1 and §2."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from ledger.core import pixels, stored_pixels
from ledger.core.errors import FixInput, Refused, Unreadable
from ledger.core.pixels import PROFILES, PixelDigest
from ledger.dicom import values
from ledger.dicom.codestreams import HTJ2K, JPEG, JPEG2000, JPEGLS, RLE, VIDEO, Codestream, describe, frame_streams
from ledger.dicom.decoder import Decoder, decoder_name, shared_decoder
from ledger.dicom.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    Element,
    Encoding,
    Walk,
    guessed_encoding,
    is_dicom_file,
    read_meta,
)
from ledger.dicom.limits import DEFAULT_LIMITS, Limits
from ledger.dicom.native import native_frames
from ledger.dicom.pixel_module import EXTENDED_LENGTHS, EXTENDED_OFFSETS, PIXEL_ELEMENTS, PixelModule, PixelReader
from ledger.dicom.pixel_module import WANTED as _PIXEL_TAGS
from ledger.dicom.regular_file import whole
from ledger.dicom.zips import MAGICS, appended

_UID: Final = "1.2.840.10008.1.2"
_NATIVE: Final = {
    _UID: IMPLICIT_LITTLE,
    f"{_UID}.1": EXPLICIT_LITTLE,
    f"{_UID}.2": EXPLICIT_BIG,
    f"{_UID}.1.99": EXPLICIT_LITTLE,
}
_DEFLATED: Final = frozenset(f"{_UID}.{n}" for n in ("1.99", "4.95", "4.205"))
_GE_IMPLICIT: Final = "1.2.840.113619.5.2"
"""GE's private syntax: implicit little endian, with pixels in big endian. Readers that know it read no VRs."""
_LOSSLESS, _EITHER, _LOSSY = "lossless", "either", "lossy"
_ENCAPSULATED: Final[Mapping[str, tuple[str, str]]] = {
    f"{_UID}.5": (RLE, _LOSSLESS),
    **{f"{_UID}.4.{n}": (JPEG, _LOSSLESS) for n in (57, 70)},
    **{f"{_UID}.4.{n}": (JPEG, _LOSSY) for n in (50, 51, 52, 53, 54, 55, 56, 58, 59, 60, 61, 62, 63, 64, 65, 66)},
    f"{_UID}.4.80": (JPEGLS, _LOSSLESS),
    f"{_UID}.4.81": (JPEGLS, _EITHER),
    f"{_UID}.4.90": (JPEG2000, _LOSSLESS),
    f"{_UID}.4.91": (JPEG2000, _EITHER),
    **{f"{_UID}.4.{n}": (JPEG2000, _LOSSY) for n in (92, 93)},
    **{f"{_UID}.4.{n}": (HTJ2K, _LOSSLESS) for n in (201, 202)},
    f"{_UID}.4.203": (HTJ2K, _EITHER),
    **{f"{_UID}.4.{n}{f}": (VIDEO, _LOSSY) for n in range(100, 107) for f in ("", ".1")},
    **{f"{_UID}.4.{n}": (VIDEO, _LOSSY) for n in (107, 108)},
}
_WANTED: Final = values.WANTED | _PIXEL_TAGS


@dataclass(frozen=True)
class DecodedDigest:
    """What one named decoder makes of a lossy image. `str()` is the value of item `DecodedPixels` (FORMAT.md §2)."""

    digest: PixelDigest
    decoder: str

    def __str__(self) -> str:
        return f"{self.digest} {self.decoder}"


class Image:
    """One DICOM object that was read strictly. Made by `read`; holds the object's bytes, so one at a time keeps memory flat.

    `transfer_syntax` is the UID as written (for an object without meta information, the one its encoding amounts to).
    `attributes` has exactly the keywords of list `attributes-1`, each with its bound text or None when absent.
    """

    def __init__(
        self,
        data: bytes,
        transfer_syntax: str,
        encoding: Encoding,
        found: Mapping[int, Element],
        walk: Walk,
        decoder: Decoder,
        limits: Limits,
    ) -> None:
        self.transfer_syntax = transfer_syntax
        self._data = data
        self._encoding = encoding
        self._found = found
        self._decoder = decoder
        self._limits = limits
        self._digests: dict[str, PixelDigest | Refused | Unreadable] = {}
        self._reader = PixelReader(data, found, encoding)
        self._pixels = next((found[tag] for tag in PIXEL_ELEMENTS if tag in found), None)
        if sum(tag in found for tag in PIXEL_ELEMENTS) > 1:
            raise Unreadable("more than one pixel element")
        self.attributes: Mapping[str, str | None] = values.bound(data, found, encoding, walk)

    @property
    def sop_instance_uid(self) -> str:
        """SOPInstanceUID, empty when the object has none."""
        return self.attributes["SOPInstanceUID"] or ""

    @property
    def frames(self) -> int:
        """Frames that the object says it has: 0 without a pixel element. Raises Refused when NumberOfFrames is no number."""
        return self._reader.frames if self._pixels is not None else 0

    @property
    def decoder(self) -> str | None:
        """The decoder that digests of this image need, as `pyjpegls 1.5.1`; None for native and for unknown codestreams."""
        return decoder_name(self._family)

    @property
    def kind(self) -> str:
        """px1 or cs1: the profile FORMAT.md §1.1 gives this image before anything refuses it; raw1 for an unknown syntax."""
        if self.transfer_syntax in _NATIVE:
            return "px1"
        if self.transfer_syntax not in _ENCAPSULATED:
            return "raw1"
        _, loss = _ENCAPSULATED[self.transfer_syntax]
        return "px1" if loss == _LOSSLESS or (loss == _EITHER and self._is_lossless_after_all) else "cs1"

    def default_profile(self, hash_name: str = "sha256") -> str:
        """The profile this image is sealed with (FORMAT.md §1.1): that of its `kind`, or raw1 when that gives no digest.

        `refusal` then has the reason. Computes the digest, which is kept. Raises Refused for an object without pixels.
        """
        if self.refusal_of(hash_name) is None:
            return f"{self.kind}-{hash_name}"
        self.digest(f"raw1-{hash_name}")
        return f"raw1-{hash_name}"

    def refusal_of(self, hash_name: str = "sha256") -> str | None:
        """Why the profile of this image's `kind` gives no digest, or None. Raises Refused for an object without pixels."""
        if self._pixels is None:
            raise Refused("the object has no pixel element")
        if self.kind == "raw1":
            return "an unknown transfer syntax"
        try:
            self.digest(f"{self.kind}-{hash_name}")
        except (Refused, Unreadable) as error:
            return str(error)
        return None

    @property
    def refusal(self) -> str | None:
        """`refusal_of("sha256")`."""
        return self.refusal_of()

    def digest(self, profile: str) -> PixelDigest:
        """The digest under a profile of `PROFILES`, computed once.

        Raises Refused with the profile's reason, FixInput for an unknown profile, and Unreadable when a limit or a crash
        stopped the decoder: that is no statement about the image, and asking again gives the same answer.
        """
        if profile not in PROFILES:
            raise FixInput(f"unknown digest profile {profile[:40]!r}: use {', '.join(PROFILES)}")
        if profile not in self._digests:
            try:
                self._digests[profile] = self._digest(PROFILES[profile].kind, PROFILES[profile].hash_name)
            except (Refused, Unreadable) as error:
                self._digests[profile] = error
        found = self._digests[profile]
        if isinstance(found, Refused | Unreadable):
            raise type(found)(str(found)) from found
        return found

    def decoded_digest(self, hash_name: str = "sha256") -> DecodedDigest:
        """The px1 digest of what this package's decoder makes of a `cs1` image, and the decoder's name and version.

        Raises Refused when there is no decoder for it (video), when it fails or is stopped, or when the image is not `cs1`.
        """
        if self.kind != "cs1":
            raise Refused("only an image under cs1 has a digest of decoded pixels")
        decoder = self.decoder
        if decoder is None:
            raise Refused(f"no decoder for {self._family.lower()} codestreams")
        try:
            return DecodedDigest(self._decoded(self._reader.module(lossy=True), hash_name), decoder)
        except Unreadable as error:
            raise Refused(str(error)) from error

    # ---- the profiles -----------------------------------------------------------------------------------------------

    def _digest(self, kind: str, hash_name: str) -> PixelDigest:
        element = self._pixels
        if element is None:
            raise Refused("the object has no pixel element")
        if kind == "raw1":
            written = next(tag for tag in PIXEL_ELEMENTS if tag in self._found), element.vr or b"\0\0", element.encapsulated
            value = memoryview(self._data)[element.start : element.end]
            return stored_pixels.raw1(
                self.transfer_syntax, written, self._reader.module_hash("raw1", hash_name), value, hash_name
            )
        if kind == "cs1":
            if self.kind != "cs1":
                raise Refused("cs1 is for lossy codestreams")
            return stored_pixels.cs1(self._family, self._streams, self._reader.module_hash("cs1", hash_name), hash_name)
        if self.kind != "px1":
            raise Refused("px1 is for pixels that are stored without loss")
        module = self._reader.module()
        if self._family:
            return self._decoded(module, hash_name)
        if element.encapsulated:
            raise Refused("encapsulated pixel data in a native transfer syntax")
        frames = native_frames(self._data, element, self._encoding, module)
        header = module.header(self._reader.palette(module, hash_name))
        return pixels.px1(header, frames, hash_name, bits=None if module.is_float else module.bits_stored)

    def _decoded(self, module: PixelModule, hash_name: str) -> PixelDigest:
        if module.bits_allocated == 1 or module.is_float:
            raise Refused(f"BitsAllocated {module.bits_allocated} in a codestream")
        frame_bytes = module.rows * module.columns * module.samples * module.bits_allocated // 8
        if frame_bytes > self._limits.frame_bytes:
            raise Unreadable(f"a decoded frame of {frame_bytes} bytes: {self._limits.frame_bytes} are allowed")
        if frame_bytes * module.frames > self._limits.decoded_bytes:
            raise Unreadable(f"{frame_bytes * module.frames} bytes of decoded frames: {self._limits.decoded_bytes} are allowed")
        lossless = self.kind == "px1"
        header = module.header(self._reader.palette(module, hash_name))
        streams = self._streams
        if self._family != RLE:
            for index, stream in enumerate(streams):
                _check(describe(stream, self._family), module, index, lossless)
        tiles = self._decoder.tiles(self._family, streams, header, (module.bits_allocated, module.bits_stored), hash_name)
        return pixels.px1_from_tiles(header, tiles, hash_name)

    @property
    def _family(self) -> str:
        return _ENCAPSULATED.get(self.transfer_syntax, ("", ""))[0]

    @cached_property
    def _streams(self) -> list[bytes]:
        element = self._pixels
        if element is None or not element.encapsulated:
            raise Refused("pixel data that is not encapsulated in a compressed transfer syntax")
        tables = (self._found.get(tag) for tag in (EXTENDED_OFFSETS, EXTENDED_LENGTHS))
        offsets, lengths = (b"" if table is None else self._data[table.start : table.end] for table in tables)
        return frame_streams(self._data, element.start, element.end, self._reader.frames, self._family, offsets, lengths)

    @cached_property
    def _is_lossless_after_all(self) -> bool:
        if self._family != JPEGLS and self._reader.is_marked_lossy:
            return False
        try:
            return all(describe(stream, self._family).lossless for stream in self._streams)
        except Refused:
            return False


def _check(stream: Codestream, module: PixelModule, index: int, lossless: bool) -> None:
    size = (stream.rows, stream.columns, stream.components)
    if size != (module.rows, module.columns, module.samples):
        said = f"{module.rows} x {module.columns} x {module.samples}"
        raise Refused(
            f"the codestream of frame {index} has {' x '.join(map(str, size))} samples where the data set says {said}"
        )
    if stream.precision > module.bits_allocated:
        raise Refused(f"the codestream of frame {index} has {stream.precision} bits, BitsAllocated is {module.bits_allocated}")
    if not lossless:
        return
    if not stream.lossless:
        raise Refused(f"the codestream of frame {index} is not lossless, as its transfer syntax says")
    if stream.subsampled:
        raise Refused(f"the codestream of frame {index} is subsampled")
    if module.photometric == "YBR_RCT" and not stream.component_transform:
        raise Refused(f"the codestream of frame {index} has no component transform, but PhotometricInterpretation is YBR_RCT")


# ---- reading --------------------------------------------------------------------------------------------------------


def read(source: Path | bytes, *, limits: Limits = DEFAULT_LIMITS, decoder: Decoder | None = None) -> Image:
    """Read one DICOM object strictly, from a regular file or from its bytes.

    Raises Unreadable when it is not DICOM or could be read in more than one way (`ledger.dicom.elements` has the rules),
    NeedPermission when the system does not let us read the file. Digests come later, on demand; `decoder` is the child process
    that they use (by default one shared by the whole process).
    """
    data = whole(source, limits) if isinstance(source, Path) else source
    if len(data) > limits.file_bytes:
        raise Unreadable(f"an object of {len(data)} bytes: {limits.file_bytes} are allowed")
    if data.startswith(MAGICS) and not is_dicom_file(data):
        raise Unreadable("a zip archive where a DICOM object is expected")
    if data.startswith(MAGICS) or appended(data):
        raise Unreadable("a DICOM object that is a zip archive as well: two readers would see two things in it")
    walk = Walk(data, limits)
    meta = read_meta(data)
    if meta is None:
        guessed = guessed_encoding(data)
        if guessed is None:
            raise Unreadable("not a DICOM object" if data else "an empty file")
        encoding, start = guessed, 0
        syntax = next(uid for uid, native in _NATIVE.items() if native == guessed)
    else:
        syntax, start = meta.transfer_syntax, meta.offset
        encoding = IMPLICIT_LITTLE if syntax == _GE_IMPLICIT else _NATIVE.get(syntax, EXPLICIT_LITTLE)
        if syntax in _DEFLATED:
            data, start = _inflated(data[start:], limits), 0
            walk = Walk(data, limits)
    found = walk.elements(start, len(data), encoding, _WANTED)
    return Image(data, syntax, encoding, found, walk, decoder or shared_decoder(), limits)


def _inflated(deflated: bytes, limits: Limits) -> bytes:
    if deflated[:1] and deflated[0] & 0x0F == 8 and int.from_bytes(deflated[:2], "big") % 31 == 0:
        raise Unreadable("the deflated data set starts like zlib's header, which some readers take it for")
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = engine.decompress(deflated, limits.file_bytes + 1)
    except zlib.error as error:
        raise Unreadable("the deflated data set is damaged") from error
    if len(data) > limits.file_bytes:
        raise Unreadable(f"the deflated data set has more than {limits.file_bytes} bytes")
    # Some writers leave gzip's trailer: CRC-32 and length, which must then be right.
    trailer = struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
    if not engine.eof or engine.unused_data not in (b"", b"\0", trailer):
        raise Unreadable("the deflated data set is cut off or followed by other bytes")
    return data
