"""Headers and fragments, read before any decoder: what they say, and what is refused."""

from __future__ import annotations

import struct

import jpeg_ls
import numpy as np
import pytest
from corpus import packaged, shared
from hypothesis import given, settings
from hypothesis import strategies as st
from making import JPEG_END as END
from making import encapsulated, item, jpeg, segment
from openjpeg.utils import encode_array

from ledger.core.errors import Refused
from ledger.dicom import read
from ledger.dicom.codestreams import JPEG, JPEG2000, JPEGLS, RLE, VIDEO, Codestream, describe, frame_streams, with_full_scans

PICTURE = np.random.default_rng(1).integers(0, 256, (40, 36), np.uint8)
J2K = bytes(encode_array(PICTURE, photometric_interpretation=2))
JLS = bytes(jpeg_ls.encode_array(PICTURE))


def split(
    count: int, family: str, *fragments: bytes, table: bytes = b"", extended: bytes = b"", lengths: bytes = b""
) -> list[bytes]:
    value = encapsulated(*fragments, table=table)[12:-8]
    return frame_streams(value, 0, len(value), count, family, extended, lengths)


def test_headers_say_what_was_encoded() -> None:
    assert describe(J2K, JPEG2000) == Codestream(40, 36, 1, 8, False, True, False, False)
    assert describe(JLS, JPEGLS) == Codestream(40, 36, 1, 8, False, True, False, False)
    assert describe(jpeg(), JPEG) == Codestream(40, 36, 1, 8, False, True, False, False)
    signed = bytes(encode_array(PICTURE.astype("<i2"), bits_stored=12, photometric_interpretation=2))
    assert describe(signed, JPEG2000) == Codestream(40, 36, 1, 12, True, True, False, False)
    colour = np.repeat(PICTURE[:, :, None], 3, 2).copy()
    for mct in (True, False):
        found = describe(bytes(encode_array(colour, photometric_interpretation=1, use_mct=mct)), JPEG2000)
        assert found == Codestream(40, 36, 3, 8, False, True, False, mct)


def test_loss_is_read_from_the_codestream() -> None:
    assert not describe(bytes(encode_array(PICTURE, photometric_interpretation=2, compression_ratios=[3])), JPEG2000).lossless
    assert not describe(bytes(jpeg_ls.encode_array(PICTURE, lossy_error=1)), JPEGLS).lossless
    assert not describe(jpeg(low=1), JPEG).lossless
    assert not describe(jpeg(0xC0), JPEG).lossless
    assert not describe(jpeg(0xC1), JPEG).lossless


def test_a_later_tile_part_or_component_that_is_irreversible_counts() -> None:
    at = J2K.index(b"\xff\x52")
    style = J2K[at + 9 : at + 14]
    for wavelet, lossless in ((1, True), (0, False)):
        component = b"\xff\x53" + struct.pack(">H", 9) + b"\0\0" + style[:4] + bytes([wavelet])
        start = J2K.index(b"\xff\x90")
        assert describe(J2K[:start] + component + J2K[start:], JPEG2000).lossless == lossless
        in_tile = start + 12
        (length,) = struct.unpack_from(">I", J2K, start + 6)
        longer = J2K[: start + 6] + struct.pack(">I", length + 11) + J2K[start + 10 : in_tile] + component + J2K[in_tile:]
        assert describe(longer, JPEG2000).lossless == lossless


@pytest.mark.parametrize(
    ("stream", "family", "reason"),
    [
        (b"", JPEG, "does not start"),
        (b"\xff\xd8", JPEG, "does not end"),
        (b"\xff\xd8" + END, JPEG, "without frame or scan"),
        (jpeg()[:-2], JPEG, "does not end"),
        (jpeg() + jpeg(), JPEG, "bytes after the end"),
        (jpeg(extra=segment(0xC0, bytes(9))), JPEG, "more than one frame"),
        (jpeg(0xC5), JPEG, "more than one frame"),
        (jpeg(), JPEGLS, "frame header ffc3"),
        (JLS, JPEG, "frame header fff7"),
        (b"\xff\xd8\x00\x00" + END, JPEG, "without a marker"),
        (b"\xff\xd8\xff\xe0\x00\x01" + END, JPEG, "runs over"),
        (b"\xff\xd8\xff\xe0\xff\xff" + END, JPEG, "runs over"),
        (JLS[:2] + segment(0xE8, b"mrfx\1") + JLS[2:], JPEGLS, "colour transform"),
        (J2K[:-2] + b"\0\0" + END, JPEG2000, "bytes after|marker segment|tile-part|without"),
        (J2K[:40], JPEG2000, "does not end"),
        (J2K[:40] + END, JPEG2000, "cut off|differ|without"),
        (b"\xff\x4f\xff\x51" + END, JPEG2000, "cut off"),
        (b"\0\0\0\x0cjP  " + J2K, JPEG2000, "does not start"),
    ],
)
def test_a_codestream_that_is_not_understood_is_refused(stream: bytes, family: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        describe(stream, family)


def test_a_tile_part_that_ends_before_its_data_is_refused() -> None:
    start = J2K.index(b"\xff\x90")
    for length in (1, 12):
        with pytest.raises(Refused, match="tile-part at byte"):
            describe(J2K[: start + 6] + struct.pack(">I", length) + J2K[start + 10 :], JPEG2000)


def test_a_jpegls_mapping_table_is_refused() -> None:
    at = JLS.index(b"\xff\xda")
    mapped = JLS[: at + 6] + b"\1" + JLS[at + 7 :]
    assert JLS[at + 6] == 0
    with pytest.raises(Refused, match="mapping tables"):
        describe(mapped, JPEGLS)


def test_subsampling_is_seen() -> None:
    assert describe(jpeg(components=3, factor=0x21), JPEG).subsampled
    assert not describe(jpeg(components=3), JPEG).subsampled


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([(J2K, JPEG2000), (JLS, JPEGLS), (jpeg(), JPEG)]), st.data())
def test_damage_is_refused_or_read_but_never_anything_else(original: tuple[bytes, str], data: st.DataObject) -> None:
    stream, family = bytearray(original[0]), original[1]
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(0, min(len(stream), 150) - 1))] = data.draw(st.integers(0, 255))
    try:
        describe(bytes(stream[: data.draw(st.integers(0, len(stream)))] + END), family)
        describe(bytes(stream), family)
    except Refused:
        pass


# ---- fragments --------------------------------------------------------------------------------------------------------


def test_fragments_make_frames() -> None:
    assert split(1, RLE, b"ab") == [b"ab"]
    assert split(2, RLE, b"ab", b"cd") == [b"ab", b"cd"]
    assert split(1, JPEG, b"ab", b"cd") == [b"abcd"]
    first, second = b"\xff\xd8\1\2", b"\xff\xd8\3\4"
    assert split(2, JPEG, first, b"xy", second, b"zw" + END) == [first + b"xy", second + b"zw" + END]
    assert split(9, VIDEO, b"ab", b"cd") == [b"abcd"]


@pytest.mark.parametrize("padding", [b"\0", b"\xff", b"\0\0\0", b"\xff\0", b"\x7f", b"\xd9"])
def test_padding_after_the_end_marker_is_no_part_of_a_codestream(padding: bytes) -> None:
    assert split(1, JPEG, jpeg() + padding) == [jpeg()]
    assert split(1, JPEG2000, b"x" + END + padding) == [b"x" + END]
    assert split(1, RLE, b"x" + END + b"\0") == [b"x" + END + b"\0"]
    assert split(1, JPEG, b"ab\1" + b"\0") == [b"ab\1\0"]
    assert split(1, JPEG, b"ab" + END + b"\1\0") == [b"ab" + END + b"\1\0"]


@pytest.mark.parametrize(
    ("count", "family", "fragments"),
    [
        (2, RLE, (b"ab",)),
        (2, RLE, (b"ab", b"cd", b"ef")),
        (2, JPEG, (b"xy", b"\xff\xd8", b"\xff\xd8")),
        (3, JPEG, (b"\xff\xd8", b"ab")),
    ],
)
def test_fragments_that_make_another_number_of_frames_are_refused(
    count: int, family: str, fragments: tuple[bytes, ...]
) -> None:
    with pytest.raises(Refused, match="fragments that don't make"):
        split(count, family, *fragments)


def test_an_offset_table_may_not_contradict_the_fragments() -> None:
    right, wrong = struct.pack("<2I", 0, 10), struct.pack("<2I", 10, 0)
    assert split(2, RLE, b"ab", b"cd", table=right) == split(2, RLE, b"ab", b"cd")
    assert split(2, RLE, b"ab", b"cd", extended=struct.pack("<2Q", 0, 10)) == [b"ab", b"cd"]
    for table in (wrong, right[:4], right + right, right[:7]):
        with pytest.raises(Refused, match="offset table contradicts"):
            split(2, RLE, b"ab", b"cd", table=table)
    for extended in (struct.pack("<2Q", 0, 12), struct.pack("<Q", 0), struct.pack("<3Q", 0, 10, 20), bytes(7)):
        with pytest.raises(Refused, match="offset table contradicts"):
            split(2, RLE, b"ab", b"cd", extended=extended)
    for table in (struct.pack("<2I", 0, 10), b"\1\0\0\0"):
        with pytest.raises(Refused, match="offset table contradicts"):
            split(1, VIDEO, b"ab", b"cd", table=table)
    assert split(1, VIDEO, b"ab", b"cd", table=bytes(4)) == [b"abcd"]


def test_an_extended_offset_table_has_the_lengths_of_its_frames() -> None:
    offsets = struct.pack("<2Q", 0, 10)
    for said in ((2, 2), (1, 2)):
        assert split(2, RLE, b"a", b"cd", extended=offsets, lengths=struct.pack("<2Q", *said)) == [b"a\0", b"cd"]
        assert split(2, RLE, b"a", b"cd", lengths=struct.pack("<2Q", *said)) == [b"a\0", b"cd"]
    for lengths in (
        struct.pack("<2Q", 2, 1),
        struct.pack("<2Q", 0, 2),
        struct.pack("<2Q", 2, 3),
        struct.pack("<Q", 2),
        bytes(9),
    ):
        with pytest.raises(Refused, match="lengths contradict"):
            split(2, RLE, b"a", b"cd", extended=offsets, lengths=lengths)
    first, second = b"\xff\xd8\1\2", b"\xff\xd8\3\4"
    for tables in ({"extended": struct.pack("<2Q", 0, 24)}, {"lengths": struct.pack("<2Q", 4, 4)}):
        assert split(2, JPEG, first, b"xy", second, b"zw") == [first + b"xy", second + b"zw"]
        with pytest.raises(Refused, match=r"several fragments|contradicts"):
            split(2, JPEG, first, b"xy", second, b"zw", **tables)


def test_an_item_that_is_no_fragment_ends_the_list() -> None:
    value = item(b"") + item(b"ab") + b"\xfe\xff\x0d\xe0" + bytes(4)
    assert frame_streams(value, 0, len(value), 1, RLE) == [b"ab"]


def test_a_scan_header_with_se_0_is_made_whole_for_sequential_jpeg_alone() -> None:
    assert with_full_scans(jpeg()) == jpeg()
    patched = with_full_scans(jpeg(0xC1, predictor=0))
    assert patched[-9:-4] == b"\0\x3f\0\x12\xff"
    assert with_full_scans(patched) == patched
    # A real file whose encoder wrote it so.
    assert read(shared() / "wg04" / "MR3_JPLY.dcm").decoded_digest().decoder.startswith("pylibjpeg-libjpeg")


def test_real_files_describe_their_streams() -> None:
    image = read(packaged()["JPGExtended.dcm"])
    digest = image.decoded_digest().digest
    assert digest.header is not None
    assert (digest.header.rows, digest.header.columns, digest.header.width) == (1024, 256, 2)
