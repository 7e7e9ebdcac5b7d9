"""Pixel digests: what stays the same on every lossless road an image travels, and nothing else. FORMAT.md §1.

Here are the profiles and `px1`, which hashes sample values, tile by tile; `cs1` and `raw1` are in `ledger.core.stored_pixels`.
These are the hashes alone: which profile an image gets, and what its values are, is `ledger.dicom`'s knowledge.
A digest proves that two images have equal samples (or bytes); it says nothing about who made them or when.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from blake3 import blake3

from ledger.core import merkle
from ledger.core.errors import EvidenceInvalid, FixInput

Samples = np.ndarray[Any, np.dtype[Any]]
Buffer = bytes | bytearray | memoryview

NO_PALETTE: Final = bytes(32)
_SMALL_FRAME_PIXELS: Final = 1 << 20
_THREADED_BYTES: Final = 1 << 20
_SLOT_HEAD: Final = 64  # keeps a tile's values aligned; the byte before them is the leaf's 0x00

_HASHES: Final[Mapping[str, Callable[[Buffer], bytes]]] = MappingProxyType(
    {"sha256": lambda message: hashlib.sha256(message).digest(), "blake3": lambda message: blake3(message).digest()}
)


@dataclass(frozen=True)
class Profile:
    """A registered digest profile: `kind` px1, cs1 or raw1, and the hash it uses (FORMAT.md §1)."""

    name: str
    kind: str
    hash_name: str


PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {f"{kind}-{name}": Profile(f"{kind}-{name}", kind, name) for kind in ("px1", "cs1", "raw1") for name in _HASHES}
)


class Kind(IntEnum):
    """What a sample is: `kind` of FORMAT.md §1.2."""

    UNSIGNED = 0
    SIGNED = 1
    FLOAT = 2


class Photometric(IntEnum):
    """The photometric class of FORMAT.md §1.2: RGB stands for YBR_RCT too, YBR_FULL for YBR_FULL_422."""

    MONOCHROME1 = 1
    MONOCHROME2 = 2
    PALETTE_COLOR = 3
    RGB = 4
    YBR_FULL = 5


@dataclass(frozen=True)
class PixelHeader:
    """What `px1` hashes beside the samples. `width` is bytes per sample. Raises FixInput for values outside FORMAT.md §1.2."""

    kind: int
    photometric: int
    width: int
    samples_per_pixel: int
    rows: int
    columns: int
    frames: int
    palette: bytes = NO_PALETTE

    def __post_init__(self) -> None:
        if self.kind not in tuple(Kind) or self.photometric not in tuple(Photometric):
            raise FixInput(f"kind {self.kind} with photometric class {self.photometric} is not in FORMAT.md §1.2")
        if self.width not in ((4, 8) if self.kind == Kind.FLOAT else (1, 2, 4)):
            raise FixInput(f"a sample of {self.width} bytes is not in FORMAT.md §1.2")
        if not 1 <= self.samples_per_pixel <= 255:
            raise FixInput(f"{self.samples_per_pixel} samples per pixel: 1 to 255 are possible")
        for name, count in (("rows", self.rows), ("columns", self.columns), ("frames", self.frames)):
            if not 1 <= count < 1 << 32:
                raise FixInput(f"{count} {name}: 1 to 4294967295 are possible")
        if len(self.palette) != 32:
            raise FixInput(f"a palette hash of {len(self.palette)} bytes, not 32")

    @property
    def tile_edge(self) -> int:
        """64 or 128 pixels, step 1 of FORMAT.md §1.2."""
        return 64 if self.rows * self.columns <= _SMALL_FRAME_PIXELS else 128

    @property
    def tile_columns(self) -> int:
        """Tiles side by side in a frame."""
        return -(-self.columns // self.tile_edge)

    @property
    def tiles_per_frame(self) -> int:
        """Tiles of one frame."""
        return self.tile_columns * -(-self.rows // self.tile_edge)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame's values as they are hashed."""
        return self.rows * self.columns * self.samples_per_pixel * self.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """The little-endian numpy type of a value."""
        return np.dtype(f"<{'uif'[self.kind]}{self.width}")


@dataclass(frozen=True)
class PixelDigest:
    """A digest and what it was computed from. `str()` is how records write it, `px1-sha256:<64 hex digits>`.

    `frames` has 32 bytes a frame: `frame_i` for px1, the codestream's leaf hash for cs1, nothing for raw1. `tiles` has the
    tile hashes of each frame in raster order of tiles, for px1 alone, and so has `header`.
    """

    profile: str
    digest: bytes
    header: PixelHeader | None = None
    frames: tuple[bytes, ...] = ()
    tiles: tuple[tuple[bytes, ...], ...] = ()

    def __str__(self) -> str:
        return f"{self.profile}:{self.digest.hex()}"


@dataclass(frozen=True)
class FrameProof:
    """What shows that one frame is number `index` of a px1 image: `path` is the RFC 9162 inclusion path of its leaf."""

    profile: str
    header: PixelHeader
    index: int
    path: tuple[bytes, ...]


@dataclass(frozen=True)
class ChangedTile:
    """A rectangle, in pixels, in which two images differ: `x` from the left, `y` from the top of frame `frame` (from 0)."""

    frame: int
    x: int
    y: int
    width: int
    height: int


def hash_of(hash_name: str) -> Callable[[Buffer], bytes]:
    """The hash of that name. Raises FixInput for one that no profile uses."""
    try:
        return _HASHES[hash_name]
    except KeyError:
        raise FixInput(f"unknown hash {hash_name!r}: use {' or '.join(_HASHES)}") from None


# ---- px1 ----------------------------------------------------------------------------------------------------------


def frame_tiles(
    frame: Samples, header: PixelHeader, hash_name: str = "sha256", *, bits: int | None = None, threads: int = 2
) -> tuple[bytes, ...]:
    """The tile hashes of one frame, in raster order of tiles: step 1 of FORMAT.md §1.2.

    `frame` has shape (rows, columns) or (rows, columns, samples), any strides, any byte order, and a type of the header's kind
    at least as wide as its width (integers may be of either sign: their low bits count). `bits` is BitsStored: only that many
    low bits of a value count, sign extended when the header says signed; None takes every bit of the width. A frame of
    1 MiB or more is cut among `threads` threads (hashing releases the interpreter's lock). Raises FixInput on another shape.
    """
    if frame.ndim == 2:
        frame = frame[:, :, np.newaxis]
    if frame.shape != (header.rows, header.columns, header.samples_per_pixel):
        raise FixInput(
            f"a frame of shape {frame.shape} does not fit {header.rows} x {header.columns} x {header.samples_per_pixel}"
        )
    if (frame.dtype.kind == "f") != (header.kind == Kind.FLOAT) or frame.dtype.kind not in "uif":
        raise FixInput(f"samples of type {frame.dtype} do not fit kind {header.kind}")
    if frame.dtype.itemsize < header.width or (header.kind == Kind.FLOAT and frame.dtype.itemsize != header.width):
        raise FixInput(f"samples of type {frame.dtype} do not fit {header.width} bytes")
    if bits is not None and not 1 <= bits <= 8 * header.width:
        raise FixInput(f"{bits} bits stored do not fit {header.width} bytes")
    hashed = hash_of(hash_name)
    edge = header.tile_edge
    bands = range(0, header.rows, edge)
    if header.frame_bytes < _THREADED_BYTES or len(bands) < 2 or threads < 2:
        return tuple(_tiles_of(frame, header, hashed, bits, bands))
    # A thread's share is a run of bands; at least 2047 bytes a tile, or hashlib would keep the lock.
    share = -(-len(bands) // threads)
    with ThreadPoolExecutor(threads - 1) as pool:
        shares = [bands[at : at + share] for at in range(0, len(bands), share)]
        later = [pool.submit(_tiles_of, frame, header, hashed, bits, part) for part in shares[1:]]
        tiles = _tiles_of(frame, header, hashed, bits, shares[0])
        for part in later:
            tiles += part.result()
    return tuple(tiles)


def _tiles_of(
    frame: Samples, header: PixelHeader, hashed: Callable[[Buffer], bytes], bits: int | None, bands: Sequence[int]
) -> list[bytes]:
    edge, samples, width = header.tile_edge, header.samples_per_pixel, header.width
    whole, rest = divmod(header.columns, edge)
    size = _SLOT_HEAD + edge * edge * samples * width
    slots = np.zeros((whole + (rest > 0), size), np.uint8)
    view = memoryview(slots.data).cast("B")
    values = slots[:, _SLOT_HEAD:].view(header.dtype)
    starts = [slot * size + _SLOT_HEAD - 1 for slot in range(len(slots))]
    tiles = []
    for top in bands:
        band = frame[top : top + edge]
        height = len(band)
        if whole:
            source = band[:, : whole * edge].reshape(height, whole, edge, samples).transpose(1, 0, 2, 3)
            _copy(source, values[:whole, : height * edge * samples].reshape(whole, height, edge, samples), header, bits)
        if rest:
            source = band[:, whole * edge :]
            _copy(source, values[whole, : height * rest * samples].reshape(height, rest, samples), header, bits)
        length = 1 + height * edge * samples * width
        tiles += [hashed(view[start : start + length]) for start in starts[:whole]]
        if rest:
            tiles.append(hashed(view[starts[whole] : starts[whole] + 1 + height * rest * samples * width]))
    return tiles


def _copy(source: Samples, target: Samples, header: PixelHeader, bits: int | None) -> None:
    unused = 0 if bits is None or header.kind == Kind.FLOAT else 8 * header.width - bits
    if header.kind == Kind.FLOAT:
        # As integers: a conversion between byte orders must not quieten a signalling NaN.
        integer = np.dtype(f"u{header.width}").newbyteorder(source.dtype.byteorder)
        np.copyto(target.view(f"<u{header.width}"), source.view(integer))
    elif not unused:
        np.copyto(target, source, casting="unsafe")
    elif header.kind == Kind.SIGNED:
        np.copyto(target, source, casting="unsafe")
        np.left_shift(target, unused, out=target)
        np.right_shift(target, unused, out=target)
    elif source.dtype == target.dtype:
        np.bitwise_and(source, (1 << (8 * header.width - unused)) - 1, out=target)
    else:
        np.copyto(target, source, casting="unsafe")
        np.bitwise_and(target, (1 << (8 * header.width - unused)) - 1, out=target)


def px1(
    header: PixelHeader, frames: Iterable[Samples], hash_name: str = "sha256", *, bits: int | None = None, threads: int = 2
) -> PixelDigest:
    """The `px1` digest of frames as `frame_tiles` takes them. Raises FixInput when their number is not `header.frames`."""
    return px1_from_tiles(
        header, (frame_tiles(frame, header, hash_name, bits=bits, threads=threads) for frame in frames), hash_name
    )


def px1_from_tiles(header: PixelHeader, tiles: Iterable[Sequence[bytes]], hash_name: str = "sha256") -> PixelDigest:
    """The `px1` digest from the tile hashes of each frame: steps 2 and 3 of FORMAT.md §1.2.

    So whoever holds tile hashes checks them against a sealed digest. Raises FixInput on a wrong number of frames or tiles.
    """
    kept = tuple(tuple(frame) for frame in tiles)
    if len(kept) != header.frames:
        raise FixInput(f"{len(kept)} frames where the header says {header.frames}")
    for index, frame in enumerate(kept):
        if len(frame) != header.tiles_per_frame:
            raise FixInput(f"frame {index} has {len(frame)} tile hashes, not {header.tiles_per_frame}")
    frames = tuple(merkle.root_of(frame, hash_name) for frame in kept)
    root = merkle.root_of([merkle.leaf_hash(frame, hash_name) for frame in frames], hash_name)
    return PixelDigest(f"px1-{hash_name}", _px1_digest(header, root, hash_name), header, frames, kept)


def _px1_digest(header: PixelHeader, root: bytes, hash_name: str) -> bytes:
    numbers = struct.pack(
        "<4B3IB",
        header.kind,
        header.photometric,
        header.width,
        header.samples_per_pixel,
        header.rows,
        header.columns,
        header.frames,
        header.tile_edge.bit_length() - 1,
    )
    return hash_of(hash_name)(b"scanseal/px1\0" + numbers + header.palette + root)


def palette_hash(channels: Sequence[tuple[int, int, Samples]], hash_name: str = "sha256") -> bytes:
    """The 32-byte hash of a palette; red, green and blue, each (first mapped value, bits 8 or 16, entries), FORMAT.md §1.2."""
    if len(channels) != 3:
        raise FixInput(f"a palette of {len(channels)} channels, not red, green and blue")
    message = bytearray(b"scanseal/palette\0")
    for first, bits, entries in channels:
        if bits not in (8, 16):
            raise FixInput(f"palette entries of {bits} bits: 8 and 16 are possible")
        message += struct.pack("<IiB", len(entries), first, bits) + entries.astype("<u2").tobytes()
    return hash_of(hash_name)(message)


# ---- one frame of many, and where an image was changed --------------------------------------------------------------


def frame_proof(digest: PixelDigest, index: int) -> FrameProof:
    """The proof for frame `index` (from 0) of a px1 digest. Raises FixInput for another profile or an index outside."""
    if digest.header is None:
        raise FixInput(f"{digest.profile} has no proof of single frames: only px1 has")
    hash_name = PROFILES[digest.profile].hash_name
    leaves = [merkle.leaf_hash(frame, hash_name) for frame in digest.frames]
    return FrameProof(digest.profile, digest.header, index, tuple(merkle.inclusion_path(leaves, index, hash_name)))


def verify_frame(sealed: str, proof: FrameProof, frame: Samples, *, bits: int | None = None) -> None:
    """`frame` (as `frame_tiles` takes it) is number `proof.index` of the image with digest string `sealed`.

    Raises EvidenceInvalid (step `frame`) when the proof does not lead to the digest. Says nothing about the other frames.
    """
    profile = PROFILES.get(proof.profile)
    if profile is None or profile.kind != "px1":
        raise EvidenceInvalid(f"{proof.profile!r} has no proof of single frames", "frame")
    header = proof.header
    tiles = frame_tiles(frame, header, profile.hash_name, bits=bits)
    leaf = merkle.leaf_hash(merkle.root_of(tiles, profile.hash_name), profile.hash_name)
    try:
        root = merkle.root_from_inclusion(leaf, proof.index, header.frames, proof.path, profile.hash_name)
    except EvidenceInvalid as error:
        raise EvidenceInvalid(str(error), "frame") from error
    found = PixelDigest(proof.profile, _px1_digest(header, root, profile.hash_name))
    if str(found) != sealed:
        raise EvidenceInvalid(f"frame {proof.index} and its proof lead to {found}, not to the sealed digest", "frame")


def changed_tiles(sealed: PixelDigest, found: PixelDigest) -> tuple[ChangedTile, ...]:
    """The tiles in which two px1 images differ, in order of frames, then raster order; empty when all samples are equal.

    Raises FixInput when the two can't be compared tile by tile (another profile, size, sample kind or frame count): then
    the whole image differs. The caller has checked `sealed` (`px1_from_tiles` gives the digest that was sealed).
    """
    ours, theirs = sealed.header, found.header
    if ours is None or theirs is None or sealed.profile != found.profile:
        raise FixInput(f"{sealed.profile} and {found.profile} can't be compared tile by tile")
    for name in ("kind", "width", "samples_per_pixel", "rows", "columns", "frames"):
        if getattr(ours, name) != getattr(theirs, name):
            raise FixInput(f"sealed with {name} {getattr(ours, name)}, found with {getattr(theirs, name)}")
    return tuple(_changed(ours, sealed.tiles, found.tiles))


def _changed(header: PixelHeader, sealed: Sequence[Sequence[bytes]], found: Sequence[Sequence[bytes]]) -> Iterator[ChangedTile]:
    edge = header.tile_edge
    for frame, (before, after) in enumerate(zip(sealed, found, strict=True)):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            if old != new:
                y, x = (part * edge for part in divmod(index, header.tile_columns))
                yield ChangedTile(frame, x, y, min(edge, header.columns - x), min(edge, header.rows - y))
