"""How far a child's pixels are from its parent's, and which of the parent's tiles it still has: for who has both images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from ledger.core.errors import FixInput
from ledger.core.pixels import PROFILES, ChangedTile, Kind, Photometric, PixelDigest, PixelHeader, Samples, frame_tiles
from ledger.dicom.frames import frame_values
from ledger.dicom.image import Image

_BLOCK_SAMPLES: Final = 1 << 20
_COLOURS: Final = frozenset((Photometric.RGB, Photometric.YBR_FULL))


@dataclass(frozen=True)
class Errors:
    """Absolute differences of stored values over `samples` pairs: their `maximum`, and their exact `mean`."""

    maximum: int
    mean: Fraction
    samples: int


@dataclass(frozen=True)
class Surviving:
    """The parent's tiles found unchanged: `tiles` of the `inside` ones wholly inside the child, of the parent's `total`.

    Rectangles are in the parent's pixels.
    """

    tiles: tuple[ChangedTile, ...]
    inside: int
    total: int


def errors(parent: Image, child: Image) -> Errors:
    """The maximum and mean absolute error of the child's samples against the parent's, frame by frame.

    Compared are stored values as `frame_values` gives them: rescale is not applied (whether it changed is the receipt's part).
    Where one image is RGB and the other YBR_FULL of 8 bits, the latter is turned to RGB (PS3.3 §C.7.6.3.1.2, rounded to the
    nearest integer). Raises FixInput when rows, columns, samples or frames differ, for other photometric classes or palettes
    that differ, and for float pixels; Refused or Unreadable when either can't be decoded.
    """
    ours, our_frames = frame_values(parent)
    theirs, their_frames = frame_values(child)
    _refuse_unlike(ours, theirs, ("rows", "columns", "samples_per_pixel", "frames"))
    convert = {ours.photometric, theirs.photometric} == _COLOURS
    if not convert:
        _refuse_unlike(ours, theirs, ("photometric", "palette"))
    elif max(ours.width, theirs.width) > 1:
        raise FixInput("RGB and YBR_FULL of more than 8 bits can't be compared")
    if Kind.FLOAT in (ours.kind, theirs.kind):
        raise FixInput("float pixels have no error in grey levels")
    maximum = total = 0
    for before, after in zip(our_frames, their_frames, strict=True):
        for one, other in _blocks(before, after):
            if convert:
                one = _rgb(one) if ours.photometric == Photometric.YBR_FULL else one
                other = _rgb(other) if theirs.photometric == Photometric.YBR_FULL else other
            difference = _absolute(one, other)
            maximum = max(maximum, int(difference.max()))
            total += int(difference.sum(dtype=np.uint64))
    samples = ours.rows * ours.columns * ours.samples_per_pixel * ours.frames
    return Errors(maximum, Fraction(total, samples), samples)


def surviving_tiles(parent: PixelDigest, child: Image, x: int = 0, y: int = 0) -> Surviving:
    """Which of the parent's px1 tiles are unchanged in `child`, whose upper left pixel is the parent's pixel (x, y).

    `parent` has the sealed tile hashes (`core.evidence.Tiles.digest`; the caller has checked them against the seal), so that
    the parent's pixels are not needed. A tile counts only when it is wholly inside the child and every value in it is equal.
    Raises FixInput when the child lies outside, or has other frames, samples, sample kinds, colours or wider values; Refused
    or Unreadable when it can't be decoded.
    """
    header = parent.header
    if header is None:
        raise FixInput(f"{parent.profile} has no tiles")
    theirs, frames = frame_values(child)
    _refuse_unlike(header, theirs, ("kind", "photometric", "palette", "samples_per_pixel", "frames"))
    if theirs.width > header.width or (header.kind == Kind.FLOAT and theirs.width != header.width):
        raise FixInput(f"the parent has values of {header.width} bytes, the child of {theirs.width}")
    if min(x, y) < 0 or x + theirs.columns > header.columns or y + theirs.rows > header.rows:
        raise FixInput(
            f"a child of {theirs.rows} x {theirs.columns} at row {y}, column {x} is outside {header.rows} x {header.columns}"
        )
    hash_name = PROFILES[parent.profile].hash_name
    edge = header.tile_edge
    total = header.tiles_per_frame * header.frames
    columns = _whole(x, theirs.columns, header.columns, edge)
    rows = _whole(y, theirs.rows, header.rows, edge)
    if not columns or not rows:
        return Surviving((), 0, total)
    left, right = columns.start * edge, min(columns.stop * edge, header.columns)
    top, bottom = rows.start * edge, min(rows.stop * edge, header.rows)
    window = _Window(
        header.kind, header.photometric, header.width, header.samples_per_pixel, bottom - top, right - left, 1, edge=edge
    )
    found = []
    for index, frame in enumerate(frames):
        part = frame[top - y : bottom - y, left - x : right - x].astype(header.dtype, copy=False)
        tiles = iter(frame_tiles(part, window, hash_name))
        for row in rows:
            for column in columns:
                if next(tiles) == parent.tiles[index][row * header.tile_columns + column]:
                    at, down = column * edge, row * edge
                    size = min(edge, header.columns - at), min(edge, header.rows - down)
                    found.append(ChangedTile(index, at, down, *size))
    return Surviving(tuple(found), len(rows) * len(columns) * header.frames, total)


@dataclass(frozen=True)
class _Window(PixelHeader):
    """A part of a frame, cut into tiles of the whole frame's edge."""

    edge: int = 64

    @property
    def tile_edge(self) -> int:
        return self.edge


def _whole(start: int, length: int, size: int, edge: int) -> range:
    """The tiles, along one side, that lie wholly in [start, start + length) of a parent of `size` pixels."""
    end = start + length
    return range(-(-start // edge), -(-size // edge) if end == size else end // edge)


def _refuse_unlike(ours: PixelHeader, theirs: PixelHeader, names: tuple[str, ...]) -> None:
    for name in names:
        one, other = getattr(ours, name), getattr(theirs, name)
        if one != other:
            said = "" if name == "palette" else f": {one} in the parent, {other} in the child"
            raise FixInput(f"{name} differs{said}")


def _blocks(before: Samples, after: Samples) -> Iterator[tuple[Samples, Samples]]:
    rows, columns, samples = before.shape
    step = max(1, _BLOCK_SAMPLES // (columns * samples))
    for top in range(0, rows, step):
        yield before[top : top + step], after[top : top + step]


def _absolute(one: Samples, other: Samples) -> Samples:
    """|one - other|, exact: the difference of two values of n bits fits n bits without sign."""
    common = np.promote_types(one.dtype, other.dtype)
    one, other = one.astype(common, copy=False), other.astype(common, copy=False)
    difference = np.maximum(one, other)
    np.subtract(difference, np.minimum(one, other), out=difference)
    return difference.view(f"u{common.itemsize}")


def _rgb(values: Samples) -> Samples:
    from pydicom.pixels.processing import convert_color_space

    return convert_color_space(values, "YBR_FULL", "RGB")
