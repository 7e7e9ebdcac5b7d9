"""What a file tells of its own making is found, and a plain radiograph's file tells nothing."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from detector.formats import file_findings, value_findings
from detector.pictures import read

GREY = np.random.default_rng(1).integers(0, 256, (90, 130), np.uint8)
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description Iptc4xmpExt:DigitalSourceType='
    b'"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/></x:xmpmeta>'
)
SETTINGS = "a chest radiograph\nNegative prompt: blur\nSteps: 30, Sampler: Euler a, CFG scale: 7, Seed: 12"


def jumbf() -> bytes:
    """The start of a C2PA manifest store: a JUMBF superbox with its description box (ISO 19566-5 §6.3)."""
    description = struct.pack(">I4s", 30, b"jumd") + b"c2pa" + bytes.fromhex("00110010800000aa00389b71") + b"\3c2pa\0"
    return struct.pack(">I4s", 8 + len(description), b"jumb") + description


def written(kind: str, pixels: NDArray[np.generic] = GREY, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def kinds(content: bytes) -> set[str]:
    return {finding.kind for finding in file_findings(content, read(content))}


def with_chunk(name: bytes, body: bytes) -> bytes:
    png = written("PNG")
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return png[:33] + chunk + png[33:]


def with_segment(marker: int, body: bytes) -> bytes:
    jpeg = written("JPEG")
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + jpeg[2:]


def with_riff(name: bytes, body: bytes) -> bytes:
    webp = written("WEBP", lossless=True)
    body = webp[8:] + name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_a_plain_file_tells_nothing() -> None:
    assert kinds(written("PNG")) == set()
    assert kinds(written("TIFF")) == set()
    assert kinds(written("JPEG")) == {"lossy"}
    assert kinds(written("WEBP")) == {"lossy"}


@pytest.mark.parametrize(
    "content",
    [
        with_chunk(b"caBX", jumbf()),
        with_segment(0xEB, b"JP\0\1\0\0\0\1" + jumbf()),
        with_riff(b"C2PA", jumbf()),
        written("TIFF", tiffinfo={0xCD41: jumbf()}),
    ],
    ids=["png", "jpeg", "webp", "tiff"],
)
def test_a_c2pa_manifest_is_found_in_each_container(content: bytes) -> None:
    assert "c2pa" in kinds(content)


def test_other_jpeg_boxes_are_no_manifest() -> None:
    other = struct.pack(">I4sI4s", 40, b"jumb", 32, b"jumd") + b"json" + bytes(24)
    assert "c2pa" not in kinds(with_segment(0xEB, b"JP\0\1\0\0\0\1" + other))


@pytest.mark.parametrize(
    "content",
    [
        with_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        with_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
        with_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
        with_riff(b"XMP ", XMP),
        written("TIFF", tiffinfo={700: XMP}),
    ],
    ids=["png", "png-compressed", "jpeg", "webp", "tiff"],
)
def test_the_digital_source_type_is_named(content: bytes) -> None:
    found = [finding for finding in file_findings(content, read(content)) if finding.kind == "digital_source_type"]
    assert [finding.text for finding in found] == [
        "digital source type trainedAlgorithmicMedia: made by a trained model or in a computer"
    ]


@pytest.mark.parametrize(
    ("keyword", "text"), [("parameters", SETTINGS), ("prompt", '{"3": {"class_type": "KSampler"}}'), ("Comment", SETTINGS)]
)
@pytest.mark.parametrize("compressed", [False, True])
def test_notes_of_generators_are_found_in_png_text(keyword: str, text: str, compressed: bool) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text(keyword, text, zip=compressed)
    content = written("PNG", pnginfo=info)
    (note,) = (finding for finding in file_findings(content, read(content)) if finding.kind == "generator_note")
    assert keyword in note.text
    assert text[:15] in note.text


def test_notes_of_generators_are_found_in_exif_and_comments() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + SETTINGS.encode("utf-16-be")
    assert "generator_note" in kinds(written("JPEG", exif=exif))
    assert "generator_note" in kinds(with_segment(0xFE, SETTINGS.encode()))


def test_software_is_a_finding_and_a_common_comment_is_none() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "PACS\x1b[31m export 4")
    info.add_text("Comment", "portable, supine")
    content = written("PNG", pnginfo=info)
    assert [finding.text for finding in file_findings(content, read(content))] == ["written by PACS [31m export 4"]


def test_eight_bits_in_a_larger_container_are_found() -> None:
    deep = GREY.astype(np.uint16) * 257
    assert {finding.kind for finding in value_findings(deep, 16)} == {"few_bits"}
    assert {finding.kind for finding in value_findings(GREY.astype(np.uint16), 12)} == {"few_bits"}
    real = np.random.default_rng(2).integers(0, 4096, (90, 130)).astype(np.uint16)
    assert value_findings(real, 12) == ()


@pytest.mark.parametrize(
    ("shape", "named"), [((1024, 1024), True), ((832, 1216), True), ((1000, 1000), False), ((2500, 2048), False)]
)
def test_canvases_that_generators_make_are_named(shape: tuple[int, int], named: bool) -> None:
    found = value_findings(np.zeros(shape, np.uint8), 8)
    assert [finding.kind for finding in found] == (["canvas"] if named else [])


def test_colour_alpha_and_pages_are_named() -> None:
    colour = np.stack([GREY, 255 - GREY, GREY], axis=-1)
    assert "colour" in kinds(written("PNG", colour))
    assert "equal_channels" in kinds(written("PNG", np.repeat(GREY[..., None], 3, axis=2)))
    assert "alpha" in kinds(written("PNG", np.repeat(GREY[..., None], 4, axis=2)))
    pages = written("TIFF", save_all=True, append_images=[Image.fromarray(GREY)])
    assert "pages" in kinds(pages)


def test_damaged_metadata_is_as_good_as_none() -> None:
    rng = np.random.default_rng(4)
    for content in (with_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)), with_riff(b"EXIF", bytes(40))):
        picture = read(content)
        for _ in range(200):
            damaged = bytearray(content)
            for at in rng.integers(8, len(content), 6):
                damaged[at] = rng.integers(0, 256)
            assert all(finding.text.isprintable() for finding in file_findings(bytes(damaged), picture))
