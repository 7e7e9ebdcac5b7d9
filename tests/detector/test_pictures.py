"""Pictures are read as they are stored, and what can't be read whole is said to be so."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from detector import pictures
from detector.pictures import PictureUnreadable, read

GREY = np.add.outer(np.arange(40), np.arange(56)).astype(np.uint8)
DEEP = (np.add.outer(np.arange(40), np.arange(56)) * 601 + 3).astype(np.uint16)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)


def written(pixels: NDArray[np.generic], kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "options", "container", "lossy"),
    [
        ("PNG", {}, "PNG", False),
        ("TIFF", {}, "TIFF", False),
        ("TIFF", {"compression": "tiff_lzw"}, "TIFF", False),
        ("TIFF", {"compression": "tiff_adobe_deflate"}, "TIFF", False),
        ("WEBP", {"lossless": True}, "WebP", False),
        ("WEBP", {"quality": 100}, "WebP", True),
        ("JPEG", {"quality": 95}, "JPEG", True),
        ("TIFF", {"compression": "jpeg"}, "TIFF", True),
    ],
)
def test_grey_values_of_each_format_are_those_stored(
    kind: str, options: dict[str, object], container: str, lossy: bool
) -> None:
    picture = read(written(GREY, kind, **options))
    assert (picture.container, picture.lossy, picture.bits) == (container, lossy, 8)
    assert picture.pixels.shape[:2] == GREY.shape
    assert picture.pixels.dtype == np.uint8
    # A lossy WebP has colour, and its grey comes back as nearly grey.
    grey = picture.pixels if picture.pixels.ndim == 2 else picture.pixels.mean(axis=2)
    assert np.abs(grey.astype(int) - GREY).max() <= (8 if lossy else 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_kept(kind: str) -> None:
    picture = read(written(DEEP, kind))
    assert picture.bits == 16
    assert picture.pixels.dtype == np.uint16
    assert np.array_equal(picture.pixels, DEEP)


def tiff(values: NDArray[np.generic], photometric: int, order: str = "<") -> bytes:
    """An uncompressed grey TIFF with one strip, as written by hand (TIFF 6.0 §2)."""
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    tags = [
        (256, 4, values.shape[1]),
        (257, 4, values.shape[0]),
        (258, 3, 8 * values.itemsize),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, values.shape[0]),
        (279, 4, len(data)),
        (339, 3, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]),
    ]
    entries = b""
    for tag, kind, value in tags:
        entries += struct.pack(order + "HHI", tag, kind, 1)
        entries += struct.pack(order + ("HH" if kind == 3 else "I"), value, *([0] if kind == 3 else []))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    return head + data + struct.pack(order + "H", len(tags)) + entries + bytes(4)


def test_a_tiff_whose_zero_is_white_says_so_and_keeps_its_values() -> None:
    picture = read(tiff(DEEP, 0))
    assert picture.inverted
    assert np.array_equal(picture.pixels, DEEP)
    assert not read(tiff(DEEP, 1)).inverted


def test_of_eight_bits_pillow_has_turned_white_is_zero_already() -> None:
    picture = read(tiff(GREY, 0))
    assert not picture.inverted
    assert np.array_equal(picture.pixels, 255 - GREY)


@pytest.mark.parametrize("order", ["<", ">"])
def test_floating_point_and_signed_tiffs_are_brought_to_sixteen_bits(order: str) -> None:
    values = DEEP.astype(np.float32) - 20000.5
    picture = read(tiff(values, 1, order))
    assert picture.pixels.dtype == np.uint16
    assert (picture.pixels.min(), picture.pixels.max()) == (0, 65535)
    assert np.corrcoef(picture.pixels.ravel(), values.ravel())[0, 1] > 0.99999
    signed = (DEEP.astype(np.int32) - 30000).astype(np.int16)
    assert np.corrcoef(read(tiff(signed, 1, order)).pixels.ravel(), signed.ravel())[0, 1] > 0.99999


def test_pixels_that_are_no_numbers_are_refused() -> None:
    values = DEEP.astype(np.float32)
    values[3, 4] = np.nan
    with pytest.raises(PictureUnreadable, match="no numbers"):
        read(tiff(values, 1))


def test_colour_is_kept_and_grey_in_colour_becomes_grey() -> None:
    picture = read(written(COLOUR, "PNG"))
    assert not picture.equal_channels
    assert np.array_equal(picture.pixels, COLOUR)
    grey = read(written(np.repeat(GREY[..., None], 3, axis=2), "PNG"))
    assert grey.equal_channels
    assert grey.channels == 3
    assert np.array_equal(grey.pixels, GREY)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "1", "CMYK"])
def test_other_modes_become_grey_or_colour(mode: str) -> None:
    file = io.BytesIO()
    image = Image.fromarray(GREY)
    if mode in ("LA", "RGBA"):
        image = image.convert(mode)
        image.putalpha(Image.fromarray(255 - GREY))
        image.save(file, "PNG")
        assert np.array_equal(read(file.getvalue()).pixels, GREY)
        return
    image.convert(mode).save(file, "TIFF" if mode == "CMYK" else "PNG")
    picture = read(file.getvalue())
    assert picture.pixels.shape == GREY.shape
    if mode == "1":
        assert set(np.unique(picture.pixels)) == {0, 255}


def test_the_first_page_of_several_is_read() -> None:
    file = io.BytesIO()
    first, second = Image.fromarray(GREY), Image.fromarray(255 - GREY)
    first.save(file, "TIFF", save_all=True, append_images=[second])
    picture = read(file.getvalue())
    assert picture.pages == 2
    assert np.array_equal(picture.pixels, GREY)


def test_a_picture_is_turned_as_its_orientation_tag_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = read(written(GREY, "PNG", exif=exif))
    assert np.array_equal(picture.pixels, np.rot90(GREY, -1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_a_truncated_file_is_unreadable_and_never_half_an_image(kind: str, share: float) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (200, 300), np.uint8)
    content = written(noise, kind)
    with pytest.raises(PictureUnreadable):
        read(content[: int(share * len(content))])


def test_random_damage_raises_nothing_else() -> None:
    rng = np.random.default_rng(5)
    for kind in ("PNG", "JPEG", "TIFF", "WEBP"):
        content = written(GREY, kind)
        for _ in range(60):
            damaged = bytearray(content)
            for at in rng.integers(0, len(content), 4):
                damaged[at] = rng.integers(0, 256)
            with contextlib.suppress(PictureUnreadable):
                assert read(bytes(damaged)).pixels.ndim in (2, 3)


@pytest.mark.parametrize("content", [b"", b"GIF89a" + bytes(50), b"%PDF-1.7", bytes(500), b"\x89PNG\r\n\x1a\n", b"hello"])
def test_what_is_no_picture_is_unreadable(content: bytes) -> None:
    with pytest.raises(PictureUnreadable):
        read(content)


@pytest.mark.parametrize("side", [9_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side: int) -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1 << 16))) + chunk(b"IEND", b"")
    with pytest.raises(PictureUnreadable, match="pixels"):
        read(bomb)


def test_files_are_regular_and_not_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "image.png"
    file.write_bytes(written(GREY, "PNG"))
    assert pictures.content_of(file) == file.read_bytes()
    with pytest.raises(PictureUnreadable, match="not a regular file"):
        pictures.content_of(tmp_path)
    with pytest.raises(PictureUnreadable, match="no such file"):
        pictures.content_of(tmp_path / "other.png")
    monkeypatch.setattr(pictures, "FILE_BYTES", 20)
    with pytest.raises(PictureUnreadable, match="20 are allowed"):
        pictures.content_of(file)
