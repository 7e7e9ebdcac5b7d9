"""Errors of lossy children and surviving tiles of cut ones, against plain numpy over another decoder's pixels."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from corpus import packaged, shared
from hypothesis import given, settings
from hypothesis import strategies as st
from making import IMPLICIT, made, pixels

from ledger.core.errors import FixInput, Refused, ScanSealError
from ledger.core.evidence import Tiles
from ledger.core.pixels import ChangedTile, changed_tiles, px1
from ledger.dicom import DEFAULT_LIMITS, Decoder, Image, Limits, read
from ledger.dicom.compare import Errors, errors, surviving_tiles
from ledger.dicom.elements import fragments
from ledger.dicom.frames import frame_values


def grey(values: np.ndarray[Any, Any], **changes: Any) -> Image:
    """An 8- or 16-bit MONOCHROME2 image; more than two dimensions are frames first."""
    bits = 8 * values.dtype.itemsize
    frames = values if values.ndim == 3 else values[np.newaxis]
    fields = {
        "NumberOfFrames": str(len(frames)),
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(values.dtype.kind == "i"),
    }
    value = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"))).tobytes()
    return read(made(pixels(frames.shape[1], frames.shape[2], value, **{**fields, **changes})))


def noise(rows: int, columns: int, frames: int = 1, dtype: str = "u2", seed: int = 1) -> np.ndarray[Any, Any]:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(low, high, (frames, rows, columns), dtype, endpoint=True)


# ---- frames as values --------------------------------------------------------------------------------------------------


def test_the_values_of_every_real_file_give_its_digest() -> None:
    images = 0
    for path in [*packaged().values(), *sorted(shared().rglob("*.dcm"))]:
        try:
            image = read(path)
            sealed = image.digest("px1-sha256") if image.kind == "px1" else image.decoded_digest().digest
        except ScanSealError:
            continue
        header, frames = frame_values(image)
        assert header == sealed.header
        assert px1(header, frames).digest == sealed.digest, path
        images += 1
    assert images > 120


@pytest.mark.parametrize(("name", "reason"), [("rtplan.dcm", "no pixel element"), ("test-SR.dcm", "no pixel element")])
def test_objects_without_pixels_are_refused(name: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        frame_values(read(packaged()[name]))


def test_a_damaged_codestream_is_refused_and_the_next_one_decoded() -> None:
    data = packaged()["MR_small_RLE.dcm"].read_bytes()
    element = read(data)._pixels
    assert element is not None
    first = fragments(data, element.start, element.end)[1][0]
    _, frames = frame_values(read(data[:first] + b"\xff" * 64 + data[first + 64 :]))
    with pytest.raises(FixInput, match="could not decode"):
        next(frames)
    assert errors(read(data), read(data)).maximum == 0


def test_limits_of_the_image_hold() -> None:
    path = packaged()["MR_small_RLE.dcm"]
    with pytest.raises(FixInput, match="more than is allowed"):
        frame_values(read(path, limits=Limits(frame_bytes=100)))
    slow = Limits(decoder_time_s=0.001)
    with pytest.raises(FixInput, match=r"more than 0\.001 s"):
        px1(*frame_values(read(path, limits=slow, decoder=Decoder(DEFAULT_LIMITS))))


# ---- errors ------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 3), st.sampled_from(["u1", "u2", "i2", "i1"]), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_errors_are_those_of_plain_arithmetic(rows: int, columns: int, frames: int, dtype: str, seed: int) -> None:
    one, other = noise(rows, columns, frames, dtype, seed), noise(rows, columns, frames, dtype, seed + 1)
    difference = np.abs(one.astype(np.int64) - other.astype(np.int64))
    found = errors(grey(one), grey(other))
    assert found == Errors(int(difference.max()), Fraction(int(difference.sum()), difference.size), difference.size)


def test_values_of_different_widths_and_signs_are_compared_as_numbers() -> None:
    one, other = noise(9, 7, dtype="i2"), noise(9, 7, dtype="u1", seed=2)
    difference = np.abs(one.astype(np.int64) - other.astype(np.int64))
    assert errors(grey(one), grey(other)).maximum == difference.max()


@pytest.mark.parametrize("dtype", ["u2", "i2"])
def test_bits_that_are_no_part_of_a_value_make_no_error(dtype: str) -> None:
    one = noise(5, 5, dtype=dtype)
    other = one ^ np.array(0x5000, dtype)  # an overlay above the 12 bits stored
    stored = {"BitsStored": 12, "HighBit": 11}
    assert errors(grey(one, **stored), grey(other, **stored)).maximum == 0
    lower = one.astype(np.int64) & 0xFFF
    expected = lower if dtype == "u2" else np.where(lower > 2047, lower - 4096, lower)
    assert errors(grey(one, **stored), grey(one * 0, **stored)).maximum == np.abs(expected).max()


def test_one_grey_level_in_one_sample_of_a_large_image_is_found() -> None:
    one = noise(1500, 1400)
    other = one.copy()
    other[0, 1499, 1399] ^= 1
    found = errors(grey(one), grey(other))
    assert (found.maximum, found.mean) == (1, Fraction(1, 1500 * 1400))


@pytest.mark.parametrize("child", ["J2KI", "JLSN"])
@pytest.mark.parametrize("name", ["CT2", "MR3", "NM1", "RG3"])
def test_lossy_copies_of_real_images_have_the_error_that_another_decoder_finds(name: str, child: str) -> None:
    folder: Path = shared() / "wg04"
    lossy = folder / f"{name}_{child}.dcm"
    one, other = (pydicom.dcmread(path).pixel_array.astype(np.int64) for path in (folder / f"{name}_RLE.dcm", lossy))
    found = errors(read(folder / f"{name}_RLE.dcm"), read(lossy))
    assert found.maximum == np.abs(one - other).max() > 0
    assert found.mean == Fraction(int(np.abs(one - other).sum()), one.size)


@pytest.mark.parametrize("name", ["CT2", "RG3", "VL3"])
def test_lossless_copies_have_no_error(name: str) -> None:
    copies = [path for kind in ("RLE", "JLSL", "JPLL", "J2KR") if (path := shared() / "wg04" / f"{name}_{kind}.dcm").exists()]
    assert len(copies) > 1
    for path in copies[1:]:
        assert errors(read(copies[0]), read(path)).maximum == 0


def colour(photometric: str, values: np.ndarray[Any, Any]) -> Image:
    rows, columns, _ = values.shape
    fields = pixels(rows, columns, values.tobytes(), PhotometricInterpretation=photometric, SamplesPerPixel=3)
    return read(made({**fields, "PlanarConfiguration": 0}))


def test_ybr_is_compared_with_rgb_as_rgb() -> None:
    rgb = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [90, 90, 90]]], np.uint8)
    # PS3.3 §C.7.6.3.1.2, rounded by hand
    ybr = np.array([[[76, 85, 255], [150, 44, 21]], [[29, 255, 107], [90, 128, 128]]], np.uint8)
    for one, other in (("RGB", "YBR_FULL"), ("YBR_FULL", "RGB")):
        found = errors(colour(one, rgb if one == "RGB" else ybr), colour(other, rgb if other == "RGB" else ybr))
        assert found.maximum <= 2
    assert errors(colour("YBR_FULL", rgb), colour("YBR_FULL", ybr)).maximum == 255


@pytest.mark.parametrize(
    ("child", "reason"),
    [
        (grey(noise(10, 12)), "rows differs: 12 in the parent, 10 in the child"),
        (grey(noise(12, 10)), "columns differs"),
        (grey(noise(12, 12, 2)), "frames differs"),
        (grey(noise(12, 12), PhotometricInterpretation="MONOCHROME1"), "photometric differs"),
        (colour("RGB", np.zeros((12, 12, 3), np.uint8)), "samples_per_pixel differs"),
    ],
)
def test_unlike_images_are_not_compared(child: Image, reason: str) -> None:
    with pytest.raises(FixInput, match=reason):
        errors(grey(noise(12, 12)), child)


def floats(values: list[float]) -> Image:
    value = np.array(values, "<f4").tobytes()
    return read(made(pixels(1, len(values), b"", PixelData=None, FloatPixelData=value, BitsAllocated=32, BitsStored=None)))


def test_float_pixels_are_not_compared_but_their_tiles_are() -> None:
    with pytest.raises(FixInput, match="float"):
        errors(floats([1.5, 2]), floats([1.5, 2]))
    assert len(surviving_tiles(floats([1.5, 2]).digest("px1-sha256"), floats([1.5, 2])).tiles) == 1
    assert surviving_tiles(floats([1.5, 2]).digest("px1-sha256"), floats([1.5, 3])).tiles == ()


# ---- surviving tiles -----------------------------------------------------------------------------------------------------


def survivors_by_hand(
    parent: np.ndarray[Any, Any], child: np.ndarray[Any, Any], x: int, y: int
) -> tuple[set[ChangedTile], int]:
    frames, rows, columns = parent.shape
    edge = 64 if rows * columns <= 1 << 20 else 128
    found, inside = set(), 0
    for frame in range(frames):
        for top in range(0, rows, edge):
            for left in range(0, columns, edge):
                bottom, right = min(top + edge, rows), min(left + edge, columns)
                if left < x or top < y or right > x + child.shape[2] or bottom > y + child.shape[1]:
                    continue
                inside += 1
                if (parent[frame, top:bottom, left:right] == child[frame, top - y : bottom - y, left - x : right - x]).all():
                    found.add(ChangedTile(frame, left, top, right - left, bottom - top))
    return found, inside


@given(st.data(), st.integers(1, 300), st.integers(1, 300), st.integers(1, 2), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_the_tiles_that_survive_a_crop_and_a_burn_in_are_found(
    data: st.DataObject, rows: int, columns: int, frames: int, seed: int
) -> None:
    parent = noise(rows, columns, frames, seed=seed)
    x, y = data.draw(st.integers(0, columns - 1)), data.draw(st.integers(0, rows - 1))
    width = data.draw(st.one_of(st.just(columns - x), st.integers(1, columns - x)))
    height = data.draw(st.one_of(st.just(rows - y), st.integers(1, rows - y)))
    child = parent[:, y : y + height, x : x + width].copy()
    if data.draw(st.booleans()):
        child[frames - 1, height // 2, width // 3] ^= 1
    digest = grey(parent).digest("px1-sha256")
    found = surviving_tiles(Tiles.of(digest).digest("px1-sha256"), grey(child), x, y)
    expected, inside = survivors_by_hand(parent, child, x, y)
    assert set(found.tiles) == expected
    assert (found.inside, found.total) == (inside, sum(map(len, digest.tiles)))


@pytest.mark.parametrize("hash_name", ["sha256", "blake3"])
def test_a_small_crop_of_a_large_image_is_cut_into_the_parents_tiles(hash_name: str) -> None:
    parent = noise(1300, 1100)
    x, y = 100, 131
    child = parent[:, y : y + 600, x : x + 700]
    found = surviving_tiles(grey(parent).digest(f"px1-{hash_name}"), grey(child), x, y)
    expected, inside = survivors_by_hand(parent, child, x, y)
    assert set(found.tiles) == expected
    assert len(found.tiles) == found.inside == inside == 15


def test_a_burn_in_spares_all_tiles_but_those_that_it_touches() -> None:
    dataset = pydicom.dcmread(packaged()["CT_small.dcm"])
    parent = read(packaged()["CT_small.dcm"])
    values = dataset.pixel_array.copy()
    values[3:10, 70:100] = 2000
    dataset.PixelData = values.tobytes()
    output = io.BytesIO()
    dataset.save_as(output)
    child = read(output.getvalue())
    sealed = parent.digest("px1-sha256")
    found = surviving_tiles(sealed, child)
    assert found.total == found.inside == 4
    gone = set(changed_tiles(sealed, child.digest("px1-sha256")))
    assert gone == {ChangedTile(0, 64, 0, 64, 64)}
    assert len(found.tiles) == 3
    assert not gone & set(found.tiles)


def test_narrower_values_of_the_child_count_by_value() -> None:
    parent = noise(70, 70) & 0xFF
    found = surviving_tiles(grey(parent).digest("px1-sha256"), grey(parent.astype("u1")))
    assert len(found.tiles) == found.total == 4


def test_a_crop_between_tiles_has_none() -> None:
    parent = noise(128, 128)
    found = surviving_tiles(grey(parent).digest("px1-sha256"), grey(parent[:, 1:127, 1:127]), 1, 1)
    assert (found.tiles, found.inside, found.total) == ((), 0, 4)


@pytest.mark.parametrize(
    ("child", "at", "reason"),
    [
        (grey(noise(64, 64)), (65, 0), "outside"),
        (grey(noise(64, 64)), (-1, 0), "outside"),
        (grey(noise(129, 64)), (0, 0), "outside"),
        (grey(noise(64, 64, 2)), (0, 0), "frames differs"),
        (grey(noise(64, 64, dtype="i2")), (0, 0), "kind differs"),
        (grey(noise(64, 64), PhotometricInterpretation="MONOCHROME1"), (0, 0), "photometric differs"),
        (grey(noise(64, 64, dtype="u4")), (0, 0), "values of 2 bytes, the child of 4"),
    ],
)
def test_a_child_that_cannot_be_a_part_of_the_parent_is_refused(child: Image, at: tuple[int, int], reason: str) -> None:
    with pytest.raises(FixInput, match=reason):
        surviving_tiles(grey(noise(128, 128)).digest("px1-sha256"), child, *at)


def test_a_digest_without_tiles_is_refused() -> None:
    image = read(made(pixels(1, 2, b"ab"), syntax=IMPLICIT))
    with pytest.raises(FixInput, match="no tiles"):
        surviving_tiles(image.digest("raw1-sha256"), image)
