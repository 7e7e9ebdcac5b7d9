"""Which profile an image gets, what its digest survives, and that real files never crash the reader."""

from __future__ import annotations

import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

import jpeg_ls
import numpy as np
import plain_pixels
import pydicom
import pytest
from corpus import packaged, shared
from hypothesis import given, settings
from hypothesis import strategies as st
from making import BASELINE, BIG, EXPLICIT, IMPLICIT, J2K, JPEGLS, RLE, element, encapsulated, jpeg, made, pixels
from openjpeg.utils import encode_array

from ledger.core.errors import FixInput, NeedPermission, Refused, ScanSealError, Unreadable
from ledger.core.pixels import ChangedTile, Kind, Photometric, changed_tiles
from ledger.dicom import Image, Limits, read

REFUSED = {
    "GDCMJ2K_TextGBR.dcm": "does not start with its marker",
    "MR_small_padded.dcm": "8320 bytes of pixel data where 8192",
    "SC_rgb_expb_16bit.dcm": "big endian pixel data of 16 bits with VR OB",
    "SC_rgb_expb_16bit_2frame.dcm": "big endian pixel data of 16 bits with VR OB",
    "SC_rgb_expb_32bit.dcm": "big endian pixel data of 32 bits",
    "SC_rgb_expb_32bit_2frame.dcm": "big endian pixel data of 32 bits",
    "badVR.dcm": "NumberOfFrames",
    "gdcm-US-ALOKA-16.dcm": "segmented palette",
    "gdcm-US-ALOKA-16_big.dcm": "segmented palette",
    "rtdose_expb.dcm": "big endian pixel data of 32 bits",
    "rtdose_expb_1frame.dcm": "big endian pixel data of 32 bits",
}
"""Every real file that is sealed as raw1, and why."""


def test_every_packaged_file_gets_a_digest_or_a_named_refusal() -> None:
    profiles: dict[str, int] = defaultdict(int)
    raw = {}
    for name, path in packaged().items():
        try:
            image = read(path)
        except Unreadable:
            continue
        try:
            profile = image.default_profile()
        except Refused:
            assert image.frames == 0, name
            continue
        digest = image.digest(profile)
        assert str(digest).startswith(profile + ":")
        profiles[profile] += 1
        if profile == "raw1-sha256":
            raw[name] = image.refusal or ""
    assert dict(profiles) == {"px1-sha256": 131, "cs1-sha256": 28, "raw1-sha256": len(REFUSED)}
    assert raw.keys() == REFUSED.keys()
    for name, reason in raw.items():
        assert REFUSED[name] in reason


SAME = [
    "MR_small.dcm MR_small_RLE.dcm MR_small_bigendian.dcm MR_small_expb.dcm MR_small_implicit.dcm MR_small_jp2klossless.dcm "
    "MR_small_jpeg_ls_lossless.dcm",
    "emri_small.dcm emri_small_RLE.dcm emri_small_big_endian.dcm emri_small_jpeg_2k_lossless.dcm",
    "emri_small.dcm emri_small_jpeg_ls_lossless.dcm",
    "SC_rgb.dcm SC_rgb_rle.dcm SC_rgb_expb.dcm SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_16bit_2frame.dcm SC_rgb_rle_16bit_2frame.dcm",
    "SC_rgb_32bit.dcm SC_rgb_rle_32bit.dcm",
    "OBXXXX1A.dcm OBXXXX1A_expb.dcm OBXXXX1A_rle.dcm",
    "liver.dcm liver_expb.dcm",
    "rtdose.dcm rtdose_rle.dcm",
    "color-pl.dcm color-px.dcm",
    "SC_rgb_small_odd.dcm SC_rgb_small_odd_big_endian.dcm",
    "examples_jpeg2k.dcm US1_UNCR.dcm US1_J2KR.dcm",
    "693_UNCR.dcm 693_J2KR.dcm",
    "MR2_UNCR.dcm MR2_J2KR.dcm",
]


@pytest.mark.parametrize("names", SAME)
def test_the_same_picture_in_other_encodings_has_the_same_digest(names: str) -> None:
    assert len({str(read(packaged()[name]).digest("px1-sha256")) for name in names.split()}) == 1


@pytest.mark.parametrize("name", ["CT2", "MR3", "NM1", "RG3", "VL3"])
def test_wg04_lossless_forms_are_one_picture_and_lossy_ones_are_others(name: str) -> None:
    lossless, lossy = {}, {}
    for path in sorted((shared() / "wg04").glob(f"{name}_*.dcm")):
        form = path.stem.split("_")[1]
        image = read(path)
        if form in ("JLSL", "JPLL", "J2KR", "RLE"):
            lossless[form] = str(image.digest(image.default_profile()))
        else:
            assert image.default_profile() == "cs1-sha256"
            lossy[form] = str(image.decoded_digest())
            assert str(image.digest("cs1-sha256")) != str(image.digest("raw1-sha256"))
    assert len(lossless) >= 2
    assert len(set(lossless.values())) == 1
    assert set(lossless.values()).isdisjoint({value.split(" ")[0] for value in lossy.values()})
    assert all(value.split(" ")[1].startswith(("pylibjpeg", "pyjpegls")) for value in lossy.values())


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small.dcm",
        "SC_rgb.dcm",
        "SC_rgb_16bit_2frame.dcm",
        "SC_rgb_32bit.dcm",
        "SC_ybr_full_uncompressed.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
        "SC_rgb_small_odd.dcm",
        "color-pl.dcm",
        "emri_small.dcm",
        "liver.dcm",
        "rtdose.dcm",
        "examples_overlay.dcm",
        "RG3_UNCR.dcm",
    ],
)
def test_the_second_implementation_agrees_on_real_files(name: str) -> None:
    dataset = pydicom.dcmread(packaged()[name])
    module: dict[str, int | str] = {
        "photometric_interpretation": dataset.PhotometricInterpretation,
        "samples_per_pixel": dataset.SamplesPerPixel,
        "rows": dataset.Rows,
        "columns": dataset.Columns,
        "number_of_frames": int(dataset.get("NumberOfFrames") or 1),
        "bits_allocated": dataset.BitsAllocated,
        "bits_stored": dataset.BitsStored,
        "pixel_representation": dataset.PixelRepresentation,
        "planar_configuration": dataset.get("PlanarConfiguration", 0),
    }
    values = plain_pixels.native_values(dataset.PixelData, module)
    assert plain_pixels.digest(module, values) == str(read(packaged()[name]).digest("px1-sha256"))


@st.composite
def native_images(draw: st.DrawFn) -> tuple[dict[str, int | str], bytes]:
    photometric = draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422"]))
    samples = 1 if photometric.startswith("MONO") else 3
    allocated = 8 if photometric == "YBR_FULL_422" else draw(st.sampled_from([1, 8, 16, 32] if samples == 1 else [8, 16, 32]))
    rows, columns, frames = draw(st.integers(1, 70)), draw(st.integers(1, 70)), draw(st.integers(1, 2))
    if photometric == "YBR_FULL_422":
        columns += columns % 2
    module: dict[str, int | str] = {
        "photometric_interpretation": photometric,
        "samples_per_pixel": samples,
        "rows": rows,
        "columns": columns,
        "number_of_frames": frames,
        "bits_allocated": allocated,
        "bits_stored": draw(st.integers(1, allocated)),
        "pixel_representation": 0 if allocated == 1 else draw(st.integers(0, 1)),
        "planar_configuration": 0 if samples == 1 or photometric == "YBR_FULL_422" else draw(st.integers(0, 1)),
    }
    bits = rows * columns * frames * allocated * (2 if photometric == "YBR_FULL_422" else samples)
    return module, np.random.default_rng(draw(st.integers(0, 9))).bytes((bits + 7) // 8)


def object_of(module: dict[str, int | str], value: bytes, **changes: Any) -> dict[str, Any]:
    names = ("PhotometricInterpretation", "SamplesPerPixel", "Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored")
    fields = dict(zip((*names, "PixelRepresentation", "PlanarConfiguration"), module.values(), strict=True))
    fields["NumberOfFrames"] = str(fields["NumberOfFrames"])
    if fields["SamplesPerPixel"] == 1:
        fields["PlanarConfiguration"] = None  # type: ignore[assignment]
    return {**fields, "HighBit": int(module["bits_stored"]) - 1, "PixelData": value, **changes}


@settings(deadline=None, max_examples=60)
@given(native_images())
def test_the_second_implementation_agrees_on_random_images(image: tuple[dict[str, int | str], bytes]) -> None:
    module, value = image
    expected = plain_pixels.digest(module, plain_pixels.native_values(value, module))
    for syntax in (EXPLICIT, IMPLICIT):
        assert str(read(made(object_of(module, value), syntax=syntax)).digest("px1-sha256")) == expected
    if int(module["bits_allocated"]) <= 16:
        padded = value + b"\0" * (len(value) % 2)
        swapped = bytearray(padded)
        swapped[::2], swapped[1::2] = padded[1::2], padded[::2]
        assert str(read(made(object_of(module, bytes(swapped)), syntax=BIG)).digest("px1-sha256")) == expected


def test_flipping_a_used_bit_changes_the_digest_and_an_unused_one_does_not() -> None:
    value = np.random.default_rng(3).bytes(8)
    changes = {"BitsAllocated": 16, "BitsStored": 10, "HighBit": 9, "PixelRepresentation": 1}
    sealed = read(made(pixels(2, 2, value, **changes))).digest("px1-sha256")
    for bit in range(64):
        flipped = bytearray(value)
        flipped[bit // 8] ^= 1 << bit % 8
        found = read(made(pixels(2, 2, bytes(flipped), **changes))).digest("px1-sha256")
        assert (found.digest == sealed.digest) == (bit % 16 >= 10), bit
        assert len(changed_tiles(sealed, found)) == (bit % 16 < 10)


def test_a_lesion_edit_is_located() -> None:
    value = bytes(200 * 300)
    edited = bytearray(value)
    edited[130 * 300 + 70] = edited[130 * 300 + 71] = 9
    before, after = (read(made(pixels(200, 300, bytes(v)))).digest("px1-sha256") for v in (value, edited))
    assert changed_tiles(before, after) == (ChangedTile(0, 64, 128, 64, 64),)


# ---- compressed transfer syntaxes -------------------------------------------------------------------------------------

RGB = {"SamplesPerPixel": 3, "PlanarConfiguration": 0}
PICTURE = np.random.default_rng(4).integers(0, 256, (36, 44, 3), np.uint8)


def compressed(syntax: str, *streams: bytes, **changes: Any) -> bytes:
    return made(pixels(36, 44, encapsulated(*streams), **{**RGB, "PhotometricInterpretation": "RGB", **changes}), syntax=syntax)


def rle_of(plane_first: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """RLE Lossless (PS3.5 Annex G) without any run: literal packets of at most 128 bytes."""
    segments = []
    for plane in plane_first:
        raw = plane.tobytes()
        packets = b"".join(bytes([len(raw[at : at + 128]) - 1]) + raw[at : at + 128] for at in range(0, len(raw), 128))
        segments.append(packets + b"\0" * (len(packets) % 2))
    offsets = [64 + sum(map(len, segments[:n])) for n in range(len(segments))]
    return struct.pack("<16I", len(segments), *offsets, *[0] * (15 - len(segments))) + b"".join(segments)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_no_decoder_changes_colours(photometric: str) -> None:
    native = read(made(pixels(36, 44, PICTURE.tobytes(), **RGB, PhotometricInterpretation=photometric)))
    expected = native.digest("px1-sha256")
    streams = [(JPEGLS, jpeg_ls.encode_array(PICTURE, interleave_mode=mode)) for mode in (1, 2)]
    streams.append((JPEGLS, jpeg_ls.encode_buffer(PICTURE.transpose(2, 0, 1).tobytes(), 36, 44, 3, 8, interleave_mode=0)))
    streams += [(J2K, encode_array(PICTURE, photometric_interpretation=1, use_mct=mct)) for mct in (True, False)]
    streams.append((RLE, rle_of(PICTURE.transpose(2, 0, 1))))
    for syntax, stream in streams:
        found = read(compressed(syntax, bytes(stream), PhotometricInterpretation=photometric))
        assert found.digest("px1-sha256") == expected, (syntax, len(stream))
    with_transform = bytes(encode_array(PICTURE, photometric_interpretation=1, use_mct=True))
    without = bytes(encode_array(PICTURE, photometric_interpretation=1, use_mct=False))
    if photometric == "RGB":
        assert read(compressed(J2K, with_transform, PhotometricInterpretation="YBR_RCT")).digest("px1-sha256") == expected
        assert "no component transform" in str(read(compressed(J2K, without, PhotometricInterpretation="YBR_RCT")).refusal)


@pytest.mark.parametrize(
    ("name", "photometric"),
    [
        ("SC_rgb_dcmtk_+eb+cr.dcm", Photometric.RGB),
        ("SC_jpeg_no_color_transform.dcm", Photometric.RGB),
        ("SC_rgb_dcmtk_+eb+cy+n1.dcm", Photometric.YBR_FULL),
        ("SC_rgb_dcmtk_+eb+cy+s2.dcm", Photometric.YBR_FULL),
        ("examples_ybr_color.dcm", Photometric.YBR_FULL),
    ],
)
def test_lossy_jpeg_is_decoded_into_the_colours_it_is_stored_in(name: str, photometric: int) -> None:
    from ledger.dicom.decoding_child import decode

    path = packaged()[name]
    header = read(path).decoded_digest().digest.header
    assert header is not None
    assert header.photometric == photometric
    dataset = pydicom.dcmread(path)
    frames = int(dataset.get("NumberOfFrames") or 1)
    stream = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=frames))
    ours = decode("JPEG", stream.rstrip(b"\0"), header, 8).astype(int)
    # Another decoder, asked for the stored components: within the rounding and chroma spreading that decoders differ by.
    theirs = pydicom.pixels.pixel_array(path, index=0, raw=True, decoding_plugin="gdcm").astype(int)
    assert np.abs(ours - theirs).mean() < 1.5


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("stored", [9, 12, 16])
def test_precision_and_sign_of_a_codestream_do_not_matter(stored: int, signed: bool) -> None:
    limits = (-(1 << stored - 1), 1 << stored - 1) if signed else (0, 1 << stored)
    values = np.random.default_rng(5).integers(*limits, (40, 36)).astype("<i2" if signed else "<u2")
    fields = {"BitsAllocated": 16, "BitsStored": stored, "HighBit": stored - 1, "PixelRepresentation": int(signed)}
    expected = read(made(pixels(40, 36, values.tobytes(), **fields))).digest("px1-sha256")
    assert expected.header is not None
    assert expected.header.kind == (Kind.SIGNED if signed else Kind.UNSIGNED)
    low = (values.view("<u2") & ((1 << stored) - 1)).astype("<u2")
    streams = [
        (J2K, encode_array(values, bits_stored=stored, photometric_interpretation=2)),
        (J2K, encode_array(low, bits_stored=stored, photometric_interpretation=2)),
        (J2K, encode_array(values.view("<u2"), bits_stored=16, photometric_interpretation=2)),
        (JPEGLS, jpeg_ls.encode_buffer(low.tobytes(), 40, 36, 1, stored)),
        (JPEGLS, jpeg_ls.encode_buffer(values.tobytes(), 40, 36, 1, 16)),
    ]
    for syntax, stream in streams:
        image = read(made(pixels(40, 36, encapsulated(bytes(stream)), **fields), syntax=syntax))
        assert image.digest("px1-sha256") == expected


def test_a_reversible_codestream_under_a_syntax_that_allows_loss_is_lossless_unless_marked() -> None:
    picture = PICTURE[:, :, 0].copy()
    j2k = bytes(encode_array(picture, photometric_interpretation=2))
    lossy = bytes(encode_array(picture, photometric_interpretation=2, compression_ratios=[4]))
    expected = read(made(pixels(36, 44, picture.tobytes()))).digest("px1-sha256")
    either = "1.2.840.10008.1.2.4.91"
    marked = {0x00282110: element(0x00282110, "CS", "01")}
    assert read(made(pixels(36, 44, encapsulated(j2k)), syntax=either)).digest("px1-sha256") == expected
    assert read(made(pixels(36, 44, encapsulated(j2k)), syntax=either, extra=marked)).default_profile() == "cs1-sha256"
    assert read(made(pixels(36, 44, encapsulated(lossy)), syntax=either)).default_profile() == "cs1-sha256"
    assert "not lossless" in str(read(made(pixels(36, 44, encapsulated(lossy)), syntax=J2K)).refusal)
    for near, kind in ((0, "px1"), (2, "cs1")):
        stream = bytes(jpeg_ls.encode_array(picture, lossy_error=near))
        assert read(made(pixels(36, 44, encapsulated(stream)), syntax="1.2.840.10008.1.2.4.81")).kind == kind
        refusal = read(made(pixels(36, 44, encapsulated(stream)), syntax=JPEGLS)).refusal
        assert (refusal is None) == (near == 0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Rows": 8}, "has 36 x 44 x 1 samples where the data set says 8 x 44 x 1"),
        ({"Columns": 1000}, "samples where"),
        ({"NumberOfFrames": "2"}, "1 fragments that don't make 2 frames"),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "BitsAllocated 1 in a codestream"),
        ({**RGB, "PhotometricInterpretation": "RGB"}, "samples where"),
        ({"PhotometricInterpretation": "YBR_ICT", **RGB}, "YBR_ICT"),
        ({"PhotometricInterpretation": None}, "PhotometricInterpretation ''"),
        ({"Rows": None}, "Rows is missing"),
        ({"Rows": b"\1\0\0\0"}, "Rows has 4 bytes"),
    ],
)
def test_a_codestream_that_contradicts_the_data_set_is_refused_and_sealed_raw(changes: dict[str, Any], reason: str) -> None:
    stream = bytes(jpeg_ls.encode_array(PICTURE[:, :, 0].copy()))
    image = read(made(pixels(36, 44, encapsulated(stream), **changes), syntax=JPEGLS))
    with pytest.raises(Refused, match=reason):
        image.digest("px1-sha256")
    assert image.default_profile() == "raw1-sha256"
    assert reason.split("\\")[0] in (image.refusal or "")


def test_a_subsampled_lossless_codestream_is_refused() -> None:
    fields = {**RGB, "PhotometricInterpretation": "YBR_FULL"}
    for factor, refused in ((0x21, True), (0x11, False)):
        stream = jpeg(components=3, factor=factor)
        image = read(made(pixels(40, 36, encapsulated(stream), **fields), syntax="1.2.840.10008.1.2.4.70"))
        assert ("is subsampled" in str(image.refusal)) == refused


def test_precision_above_bits_allocated_is_refused() -> None:
    stream = bytes(jpeg_ls.encode_buffer(bytes(36 * 44 * 2), 36, 44, 1, 12))
    assert "12 bits, BitsAllocated is 8" in str(read(made(pixels(36, 44, encapsulated(stream)), syntax=JPEGLS)).refusal)


@pytest.mark.parametrize("syntax", [RLE, JPEGLS, J2K, BASELINE, "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.201"])
@pytest.mark.parametrize(
    "garbage", [b"", b"\0\0", b"\xff\xd8\xff\xd9", b"\xff\x4f\xff\x51\xff\xd9", np.random.default_rng(6).bytes(900)]
)
def test_garbage_in_fragments_is_refused(syntax: str, garbage: bytes) -> None:
    image = read(made(pixels(36, 44, encapsulated(garbage)), syntax=syntax))
    if image.kind == "cs1":
        assert image.default_profile() == "cs1-sha256"
        with pytest.raises(Refused):
            image.decoded_digest()
    else:
        assert image.default_profile() == "raw1-sha256"
        assert image.refusal


def test_pixels_that_are_encapsulated_or_not_against_their_syntax_are_refused() -> None:
    assert "native transfer syntax" in str(read(made(pixels(1, 2, encapsulated(b"ab")))).refusal)
    assert "not encapsulated" in str(read(made(pixels(1, 2, b"ab"), syntax=RLE)).refusal)
    empty = element(0x7FE00010, "OB", b"", length=0xFFFFFFFF) + b"\xfe\xff\xdd\xe0\0\0\0\0"
    assert "without an offset table" in str(read(made(pixels(1, 2, empty), syntax=RLE)).refusal)
    assert "without fragments" in str(read(made(pixels(1, 2, encapsulated()), syntax=RLE)).refusal)


def test_video_and_unknown_syntaxes() -> None:
    for frames in ("1", "250"):
        video = read(
            made(
                pixels(36, 44, encapsulated(b"\0\0\1\xb3" * 9, b"more"), NumberOfFrames=frames),
                syntax="1.2.840.10008.1.2.4.102",
            )
        )
        assert video.default_profile() == "cs1-sha256"
        assert len(video.digest("cs1-sha256").frames) == 1
        assert video.decoder is None
        with pytest.raises(Refused, match="no decoder for video"):
            video.decoded_digest()
    unknown = read(made(pixels(36, 44, encapsulated(b"xyzw")), syntax="1.2.840.10008.1.2.4.110"))
    assert (unknown.default_profile(), unknown.refusal) == ("raw1-sha256", "an unknown transfer syntax")


# ---- cs1 and raw1 bind the Image Pixel module -------------------------------------------------------------------------


def lossy(extra: dict[int, bytes] | None = None, **changes: Any) -> Image:
    fields = {**pixels(40, 36, encapsulated(jpeg(0xC0))), **changes}
    return read(made(fields, syntax=BASELINE, extra=extra))


def odd(extra: dict[int, bytes] | None = None, syntax: str = EXPLICIT, **changes: Any) -> Image:
    fields = {**pixels(2, 4, bytes(range(16)), BitsAllocated=16, BitsStored=12, HighBit=14), **changes}
    return read(made(fields, syntax=syntax, extra=extra))


OTHER_MODULES: list[dict[str, Any]] = [
    {"PhotometricInterpretation": "MONOCHROME1"},
    {"PhotometricInterpretation": "PALETTE COLOR"},
    {"PhotometricInterpretation": None},
    {"BitsAllocated": 8},
    {"BitsStored": 11},
    {"HighBit": 13},
    {"HighBit": None},
    {"PixelRepresentation": 1},
    {"Rows": 4},
    {"Columns": 2},
    {"Rows": 4, "Columns": 2},
    {"NumberOfFrames": "1"},
    {"SamplesPerPixel": 3},
]


@pytest.mark.parametrize("changes", OTHER_MODULES)
def test_a_sealed_codestream_under_another_module_is_another_image(changes: dict[str, Any]) -> None:
    base = {"BitsAllocated": 16, "BitsStored": 8, "HighBit": 7}
    sealed, found = lossy(**base), lossy(**{**base, **changes})
    assert (sealed.default_profile(), found.default_profile()) == ("cs1-sha256", "cs1-sha256")
    assert sealed.digest("cs1-sha256").digest != found.digest("cs1-sha256").digest
    assert sealed.digest("cs1-sha256").frames == found.digest("cs1-sha256").frames


@pytest.mark.parametrize("changes", [*OTHER_MODULES, {"PlanarConfiguration": 1}])
def test_stored_bytes_under_another_module_are_another_image(changes: dict[str, Any]) -> None:
    assert odd().default_profile() == "raw1-sha256"
    assert odd(**changes).digest("raw1-sha256").digest != odd().digest("raw1-sha256").digest


def test_palettes_in_every_form_are_bound() -> None:
    tags = [base + colour for base in (0x00281101, 0x00281201, 0x00281221) for colour in range(3)]
    for make, profile in ((lossy, "cs1-sha256"), (odd, "raw1-sha256")):
        digests = {make().digest(profile).digest}
        for tag in tags:
            vr = "US" if tag < 0x00281200 else "OW"
            for value in (bytes(6), b"\1\0\0\0\0\0", bytes(8)):
                digests.add(make(extra={tag: element(tag, vr, value)}).digest(profile).digest)
        assert len(digests) == 1 + 3 * len(tags)


def test_how_a_value_is_written_counts_and_how_it_is_padded_does_not() -> None:
    """A reader takes a number under another VR for another number; storage pads, and drops what is empty."""
    sealed = lossy().digest("cs1-sha256")
    other = {0x00280103: element(0x00280103, "SS", b"\0\0")}
    assert lossy(PixelRepresentation=None, extra=other).digest("cs1-sha256") != sealed
    for written in ("MONOCHROME2", "MONOCHROME2   ", "MONOCHROME2\0\0\0", " MONOCHROME2"):
        assert lossy(PhotometricInterpretation=written).digest("cs1-sha256") == sealed
    assert lossy(NumberOfFrames="").digest("cs1-sha256") == sealed
    assert lossy(PlanarConfiguration=0).digest("cs1-sha256") == lossy(PlanarConfiguration=1).digest("cs1-sha256") == sealed


def test_raw1_binds_the_element_its_vr_and_the_offset_tables() -> None:
    plain = pixels(1, 2, b"", BitsAllocated=32, BitsStored=32, HighBit=31, PixelData=None)
    value = bytes(8)
    tag = {0x7FE00010: element(0x7FE00010, "OW", value)}
    images = [read(made(plain, extra=tag)), read(made({**plain, "FloatPixelData": value}))]
    images.append(read(made(plain, extra={0x7FE00010: element(0x7FE00010, "OB", value)})))
    wrapped = encapsulated(b"")
    images.append(read(made(plain, extra={0x7FE00010: wrapped})))
    images.append(read(made(plain, extra={0x7FE00010: element(0x7FE00010, "OB", wrapped[12:-8])})))
    for table in (0x7FE00001, 0x7FE00002):
        images.append(read(made(plain, extra={0x7FE00010: wrapped, table: element(table, "OB", bytes(8))})))
    assert len({image.digest("raw1-sha256").digest for image in images}) == len(images)
    implicit = odd(syntax=IMPLICIT).digest("raw1-sha256").digest
    assert implicit != odd().digest("raw1-sha256").digest


def test_a_number_or_a_text_under_another_vr_is_refused_by_px1() -> None:
    """pydicom reads 8241 frames where the text `1 ` has VR US."""
    picture = pixels(2, 2, b"\0\1\2\3")
    for name, tag, vr, value in (
        ("HighBit", 0x00280102, "IS", b"7 "),
        ("HighBit", 0x00280102, "SS", b"\7\0"),
        ("NumberOfFrames", 0x00280008, "US", b"1 "),
        ("PhotometricInterpretation", 0x00280004, "OB", b"MONOCHROME2 "),
    ):
        image = read(made({**picture, name: None}, extra={tag: element(tag, vr, value)}))
        assert f"{name} has VR {vr}" in str(image.refusal)


# ---- native refusals, other profiles and files ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"HighBit": 15, "BitsAllocated": 16, "BitsStored": 12}, "HighBit 15 with BitsStored 12"),
        ({"BitsStored": 9, "HighBit": 8}, "BitsStored 9 with BitsAllocated 8"),
        ({"BitsAllocated": 64, "BitsStored": 8}, "BitsAllocated 64"),
        ({"BitsStored": 0, "HighBit": 0xFFFF}, "BitsStored 0"),
        ({"NumberOfFrames": "2"}, "4 bytes of pixel data where 8"),
        ({"NumberOfFrames": "0"}, "NumberOfFrames"),
        ({"NumberOfFrames": "x"}, "NumberOfFrames"),
        ({"SamplesPerPixel": 2}, "SamplesPerPixel 2"),
        ({"PixelRepresentation": 2}, "PixelRepresentation 2"),
        ({"PhotometricInterpretation": "HSV", "SamplesPerPixel": 3}, "HSV"),
        ({"PhotometricInterpretation": "CMYK", "SamplesPerPixel": 4}, "CMYK"),
        ({"PhotometricInterpretation": "YBR_PARTIAL_422", "SamplesPerPixel": 3}, "YBR_PARTIAL_422"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "without a palette"),
        ({"PlanarConfiguration": 2, "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "PlanarConfiguration 2"),
        ({"PhotometricInterpretation": "YBR_FULL_422", "SamplesPerPixel": 3, "Columns": 1}, "odd width"),
        ({"PixelData": b"\0\1\2\3\4\5"}, "6 bytes of pixel data where 4"),
        ({"PixelData": b""}, "0 bytes of pixel data where 4"),
        ({"PixelData": None, "FloatPixelData": bytes(16)}, "BitsAllocated 8 with float"),
    ],
)
def test_native_pixels_that_px1_refuses_are_sealed_raw(changes: dict[str, Any], reason: str) -> None:
    image = read(made(pixels(2, 2, b"\0\1\2\3", **changes)))
    assert reason in str(image.refusal)
    assert image.default_profile() == "raw1-sha256"
    with pytest.raises(Refused, match="HSV|" + reason):
        image.digest("px1-sha256")


def test_one_pad_byte_is_allowed_and_not_bound() -> None:
    first, second = (read(made(pixels(1, 3, b"\1\2\3" + pad))).digest("px1-sha256") for pad in (b"\0", b"\7"))
    assert first == second


def test_float_pixels_are_bound_bit_for_bit() -> None:
    fields = pixels(1, 2, b"", BitsAllocated=32, BitsStored=None, HighBit=None, PixelRepresentation=None, PixelData=None)
    digests = {
        str(read(made({**fields, "FloatPixelData": struct.pack("<2I", 0x7F800001, low)})).digest("px1-sha256"))
        for low in (0, 1 << 31)
    }
    assert len(digests) == 2


def test_a_palette_is_bound() -> None:
    def image(blue: bytes, bits: int = 8) -> str:
        extra = {}
        for channel, entries in enumerate((b"\0\1\2\3", b"\4\5\6\7", blue)):
            tag = 0x00281101 + channel
            extra[tag] = element(tag, "US", struct.pack("<3H", 4, 0, bits))
            extra[tag + 0x100] = element(tag + 0x100, "OW", entries)
        return str(
            read(made(pixels(2, 2, b"\0\1\2\3", PhotometricInterpretation="PALETTE COLOR"), extra=extra)).digest("px1-sha256")
        )

    assert image(b"\1\2\3\4") != image(b"\1\2\3\5")
    assert image(b"\1\2\3\4") != image(b"\1\2\3\4", 16)
    assert image(b"\1\2\3\4") == image(b"\1\0\2\0\3\0\4\0")
    with pytest.raises(Refused, match="a LUT of 6 bytes"):
        image(bytes(6))


def test_profiles_are_asked_for_by_name() -> None:
    image = read(made(pixels(2, 2, b"\0\1\2\3")))
    assert image.digest("px1-sha256") is image.digest("px1-sha256")
    assert image.digest("px1-blake3").digest != image.digest("px1-sha256").digest
    assert image.default_profile("blake3") == "px1-blake3"
    with pytest.raises(FixInput, match="unknown digest profile"):
        image.digest("px2-sha256")
    with pytest.raises(Refused, match="lossy"):
        image.digest("cs1-sha256")
    with pytest.raises(Refused, match="cs1"):
        image.decoded_digest()


def test_an_object_without_pixels_has_no_digest() -> None:
    image = read(made({"SOPInstanceUID": "1.2.3"}))
    assert image.frames == 0
    for ask in (image.default_profile, lambda: image.digest("raw1-sha256"), lambda: image.digest("px1-sha256")):
        with pytest.raises(Refused, match="no pixel element"):
            ask()


def test_sizes_that_a_header_only_claims_cost_nothing() -> None:
    claims = pixels(65535, 65535, b"\0\1", BitsAllocated=32, BitsStored=32, HighBit=31, NumberOfFrames="2147483647")
    assert "bytes of pixel data where" in str(read(made(claims)).refusal)
    stream = rle_of(PICTURE.transpose(2, 0, 1)[:1])
    image = read(made(pixels(65535, 65535, encapsulated(stream)), syntax=RLE))
    assert "a decoded frame of 4294836225 bytes" in str(image.refusal)
    many = read(
        made(pixels(4000, 4000, encapsulated(stream, stream, stream), NumberOfFrames="3"), syntax=RLE),
        limits=Limits(decoded_bytes=40_000_000),
    )
    assert "48000000 bytes of decoded frames" in str(many.refusal)


def test_files_are_opened_with_care(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Unreadable, match="not a regular file"):
        read(tmp_path / "pipe")
    with pytest.raises(Unreadable):
        read(tmp_path)
    with pytest.raises(Unreadable, match="No such file"):
        read(tmp_path / "missing")
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(Unreadable, match="a file of 3221225472 bytes"):
        read(big)
    closed = tmp_path / "closed"
    closed.write_bytes(made(pixels(2, 2, b"\0\1\2\3")))
    assert read(closed).frames == 1
    closed.chmod(0)
    if os.geteuid() != 0:
        with pytest.raises(NeedPermission):
            read(closed)


def test_truncated_files_are_unreadable_at_every_length() -> None:
    whole = packaged()["MR_small_RLE.dcm"].read_bytes()
    for length in (0, 1, 131, 132, 200, 1000, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        with pytest.raises(ScanSealError):
            read(whole[:length])
