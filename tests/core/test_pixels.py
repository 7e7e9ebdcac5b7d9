from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.core import merkle, pixels, stored_pixels
from ledger.core.errors import EvidenceInvalid, FixInput
from ledger.core.pixels import ChangedTile, PixelHeader, Samples
from ledger.core.stored_pixels import Written

CT = PixelHeader(1, 2, 2, 1, 150, 200, 3)


def frames_of(header: PixelHeader, seed: int = 1) -> list[Samples]:
    generator = np.random.default_rng(seed)
    shape = (header.rows, header.columns, header.samples_per_pixel)
    return [
        generator.integers(0, 1 << 8 * header.width, shape, np.uint64).astype(f"<u{header.width}") for _ in range(header.frames)
    ]


def test_a_small_digest_by_hand() -> None:
    header = PixelHeader(0, 2, 1, 1, 1, 2, 1)
    found = pixels.px1(header, [np.array([[7, 9]], np.uint8)])
    tile = hashlib.sha256(b"\x00\x07\x09").digest()
    root = hashlib.sha256(b"\x00" + tile).digest()
    head = bytes([0, 2, 1, 1]) + b"\1\0\0\0" + b"\2\0\0\0" + b"\1\0\0\0" + b"\6"
    assert found.digest == hashlib.sha256(b"scanseal/px1\0" + head + bytes(32) + root).digest()
    assert str(found) == f"px1-sha256:{found.digest.hex()}"


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 140),
    st.integers(1, 140),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 3]),
    st.booleans(),
    st.data(),
)
def test_any_layout_of_the_same_values_gives_the_same_tiles(
    rows: int, columns: int, width: int, samples: int, signed: bool, data: st.DataObject
) -> None:
    bits = data.draw(st.integers(1 if width == 1 else 4 * width + 1, 8 * width))
    header = PixelHeader(int(signed), 2, width, samples, rows, columns, 1)
    frame = frames_of(header)[0]
    expected = pixels.frame_tiles(frame, header, bits=bits)
    planar = np.ascontiguousarray(frame.transpose(2, 0, 1)).transpose(1, 2, 0)
    wider = frame.astype(np.uint32 if width == 4 else f"<u{2 * width}")
    for same in (planar, frame.astype(frame.dtype.newbyteorder(">")), wider, frame.view(f"<i{width}"), frame[:, ::-1][:, ::-1]):
        assert pixels.frame_tiles(same, header, bits=bits) == expected
    clean = frame & np.array((1 << bits) - 1, frame.dtype)
    assert pixels.frame_tiles(clean, header, bits=bits) == expected


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 149), st.integers(0, 199), st.integers(0, 15), st.integers(0, 2))
def test_flipping_a_used_bit_changes_the_digest_and_an_unused_one_does_not(y: int, x: int, bit: int, frame: int) -> None:
    before = frames_of(CT)
    after = frames_of(CT)
    after[frame][y, x, 0] ^= 1 << bit
    digests = [pixels.px1(CT, frames, bits=12) for frames in (before, after)]
    assert (digests[0].digest == digests[1].digest) == (bit >= 12)
    tile = ChangedTile(frame, x // 64 * 64, y // 64 * 64, min(64, 200 - x // 64 * 64), min(64, 150 - y // 64 * 64))
    assert pixels.changed_tiles(*digests) == (() if bit >= 12 else (tile,))


def test_threads_do_not_change_the_tiles() -> None:
    header = PixelHeader(0, 2, 2, 1, 1400, 1000, 1)
    frame = frames_of(header)[0]
    alone = pixels.frame_tiles(frame, header, threads=1)
    assert len(alone) == header.tiles_per_frame == 11 * 8
    for threads in (2, 3, 16):
        assert pixels.frame_tiles(frame, header, threads=threads) == alone


@pytest.mark.parametrize(("rows", "edge"), [(1024, 64), (1025, 128)])
def test_the_tile_edge_grows_with_the_frame(rows: int, edge: int) -> None:
    assert PixelHeader(0, 2, 1, 1, rows, 1024, 1).tile_edge == edge


@pytest.mark.parametrize("width", [4, 8])
def test_floats_are_hashed_bit_for_bit(width: int) -> None:
    header = PixelHeader(2, 2, width, 1, 1, 4, 1)
    quiet, signalling = (0x7FC00001, 0x7F800001) if width == 4 else (0x7FF8000000000001, 0x7FF0000000000001)
    bits = np.array([[quiet, signalling, 0, 1 << (8 * width - 1)]], f"<u{width}")
    native = pixels.frame_tiles(bits.view(f"<f{width}"), header)
    assert native == (hashlib.sha256(b"\0" + bits.tobytes()).digest(),)
    assert pixels.frame_tiles(bits.astype(f">u{width}").view(f">f{width}"), header) == native


@pytest.mark.parametrize(
    "change",
    [
        {"kind": 0},
        {"photometric": 1},
        {"samples_per_pixel": 2},
        {"rows": 151},
        {"columns": 201},
        {"frames": 4},
        {"palette": b"\1" * 32},
    ],
)
def test_every_field_of_the_header_is_hashed(change: dict[str, int | bytes]) -> None:
    from dataclasses import replace

    header = replace(CT, **change)  # type: ignore[arg-type]
    assert pixels.px1(header, frames_of(header)).digest != pixels.px1(CT, frames_of(CT)).digest


def test_tile_hashes_lead_to_the_sealed_digest() -> None:
    digest = pixels.px1(CT, frames_of(CT), "blake3")
    assert pixels.px1_from_tiles(CT, digest.tiles, "blake3") == digest
    moved = (digest.tiles[1], digest.tiles[0], digest.tiles[2])
    assert pixels.px1_from_tiles(CT, moved, "blake3").digest != digest.digest
    with pytest.raises(FixInput, match="2 frames"):
        pixels.px1_from_tiles(CT, digest.tiles[:2])
    with pytest.raises(FixInput, match="frame 0 has"):
        pixels.px1_from_tiles(CT, (digest.tiles[0][1:], *digest.tiles[1:]))


def test_one_frame_of_many_is_proved() -> None:
    frames = frames_of(CT)
    digest = pixels.px1(CT, frames)
    for index in range(3):
        proof = pixels.frame_proof(digest, index)
        pixels.verify_frame(str(digest), proof, frames[index])
        with pytest.raises(EvidenceInvalid, match="not to the sealed digest"):
            pixels.verify_frame(str(digest), proof, frames[index] ^ 1)
    with pytest.raises(FixInput):
        pixels.frame_proof(digest, 3)
    with pytest.raises(FixInput, match="only px1"):
        pixels.frame_proof(stored_pixels.raw1("1.2", (0x7FE00010, b"OW", False), bytes(32), b""), 0)


def test_images_of_another_size_are_not_compared_tile_by_tile() -> None:
    other = PixelHeader(1, 2, 2, 1, 150, 201, 3)
    with pytest.raises(FixInput, match="columns 200, found with 201"):
        pixels.changed_tiles(pixels.px1(CT, frames_of(CT)), pixels.px1(other, frames_of(other)))


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (np.zeros((2, 3), np.uint8), "shape"),
        (np.zeros((2, 2), np.float32), "kind"),
        (np.zeros((2, 2), np.complex64), "kind"),
        (np.zeros((2, 2), np.uint8), "2 bytes"),
    ],
)
def test_a_frame_that_does_not_fit_the_header_is_refused(frame: Samples, reason: str) -> None:
    with pytest.raises(FixInput, match=reason):
        pixels.frame_tiles(frame, PixelHeader(0, 2, 2, 1, 2, 2, 1))


@pytest.mark.parametrize(
    "fields",
    [
        (3, 2, 1, 1, 1, 1, 1),
        (0, 6, 1, 1, 1, 1, 1),
        (0, 2, 3, 1, 1, 1, 1),
        (2, 2, 2, 1, 1, 1, 1),
        (0, 2, 1, 0, 1, 1, 1),
        (0, 2, 1, 1, 0, 1, 1),
    ],
)
def test_a_header_outside_the_format_is_refused(fields: tuple[int, ...]) -> None:
    with pytest.raises(FixInput):
        PixelHeader(*fields)  # type: ignore[arg-type]


def test_cs1_names_its_family_and_keeps_frames_apart() -> None:
    digests = {
        str(stored_pixels.cs1(family, streams, module))
        for family, streams, module in (
            ("JPEG", [b"ab", b"c"], bytes(32)),
            ("JPEG", [b"a", b"bc"], bytes(32)),
            ("JPEG", [b"abc"], bytes(32)),
            ("JPEG", [b"abc"], b"\1" * 32),
            ("JPEGLS", [b"abc"], bytes(32)),
        )
    }
    assert len(digests) == 5
    leaf = hashlib.sha256(b"\0" + b"\3" + bytes(7) + b"abc").digest()
    message = b"scanseal/cs1\0JPEG\0\1\0\0\0" + b"m" * 32 + merkle.root_of([leaf])
    assert stored_pixels.cs1("JPEG", [b"abc"], b"m" * 32).digest == hashlib.sha256(message).digest()
    with pytest.raises(FixInput, match="family"):
        stored_pixels.cs1("PNG", [b""], bytes(32))
    with pytest.raises(FixInput, match="no codestream"):
        stored_pixels.cs1("JPEG", [], bytes(32))


def test_raw1_binds_what_the_value_is_read_by() -> None:
    element = (0x7FE00010, b"OW", False)
    message = b"scanseal/raw1\0001.2\0\x10\0\xe0\x7fOW\0" + b"m" * 32 + b"abc"
    assert stored_pixels.raw1("1.2", element, b"m" * 32, b"abc").digest == hashlib.sha256(message).digest()
    others = [(0x7FE00008, b"OW", False), (0x7FE00010, b"OB", False), (0x7FE00010, b"OW", True)]
    assert len({stored_pixels.raw1("1.2", one, bytes(32), b"").digest for one in (element, *others)}) == 4
    for module, vr in ((bytes(31), b"OW"), (bytes(32), b"")):
        with pytest.raises(FixInput):
            stored_pixels.raw1("1.2", (0x7FE00010, vr, False), module, b"")


def test_the_hash_of_a_module_tells_missing_from_present_and_each_element_from_the_next() -> None:
    count = len(stored_pixels.MODULE)
    nothing: list[Written | None] = [None] * count
    assert stored_pixels.module_hash(nothing) == hashlib.sha256(b"scanseal/module\0" + bytes(count)).digest()
    hashes = {stored_pixels.module_hash(nothing)}
    for place in range(count):
        for one in (Written(b"US", b"\1\0"), Written(b"US", b"\1\0\0"), Written(b"SS", b"\1\0")):
            hashes.add(stored_pixels.module_hash([*nothing[:place], one, *nothing[place + 1 :]]))
    assert len(hashes) == 1 + 3 * count
    written = stored_pixels.module_hash([Written(b"US", b"\1\0"), *nothing[1:]])
    assert written == hashlib.sha256(b"scanseal/module\0\1US\2\0\0\0\1\0" + bytes(count - 1)).digest()
    with pytest.raises(FixInput, match="elements of the Image Pixel module"):
        stored_pixels.module_hash(nothing[1:])
    with pytest.raises(FixInput, match="a VR of 0 bytes"):
        stored_pixels.module_hash([Written(b"", b"\1"), *nothing[1:]])


def test_an_unknown_hash_is_refused() -> None:
    with pytest.raises(FixInput, match="md5"):
        pixels.px1(CT, frames_of(CT), "md5")
