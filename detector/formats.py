"""What a file tells about its own making, apart from its pixels. Reported beside the opinion, and never fed into it.

A generator's note in a file is good evidence for whoever trusts the file, and is gone after one screenshot; a radiograph can be
given one by anybody. So findings change neither the word nor the probability. Looked for are C2PA manifests (the JUMBF box in
PNG `caBX`, JPEG APP11, WebP and TIFF; present or not, their signatures are not checked), the IPTC digital source type in XMP,
the notes that generators write, and traits of the values: 8 bits in a container of more, the canvas, colour, loss.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from detector.pictures import Picture

Kind = Literal[
    "c2pa",
    "digital_source_type",
    "generator_note",
    "software",
    "few_bits",
    "canvas",
    "colour",
    "equal_channels",
    "alpha",
    "lossy",
    "pages",
]


@dataclass(frozen=True)
class Finding:
    """One thing that a file tells of itself. kind: a word for programs, text: a sentence for people."""

    kind: Kind
    text: str


_SOURCE_TYPE: Final = re.compile(rb"digitalsourcetype/([A-Za-z]{3,60})")
_MADE: Final = frozenset(
    (
        "trainedAlgorithmicMedia",
        "compositeWithTrainedAlgorithmicMedia",
        "algorithmicMedia",
        "compositeSynthetic",
        "dataDrivenMedia",
    )
)
"""IPTC digital source types (NewsCodes, digitalsourcetype) of what no camera took."""
_NOTES: Final = frozenset(
    (
        *(
            "parameters",
            "prompt",
            "negative_prompt",
            "workflow",
            "dream",
            "generation_data",
            "aigc",
            "model",
            "seed",
            "sampler",
        ),
        *("sd-metadata", "sd_metadata", "invokeai_metadata", "invokeai_graph"),
    )
)
"""Keywords under which generators of images write how they were asked (PNG text, lower case)."""
_SETTINGS: Final = re.compile(r"\bsteps:\s*\d+.*\bsampler:|\bnegative prompt:|\bcfg scale:", re.IGNORECASE | re.DOTALL)
_SIDES: Final = frozenset((256, 512, 640, 768, 896, 1024, 1280, 1536, 2048))
_TEXT_BYTES: Final = 1 << 20


def file_findings(content: bytes, picture: Picture) -> tuple[Finding, ...]:
    """What a picture's file tells, and then what its values tell. Damaged metadata is as good as none."""
    parts = {"PNG": _png, "JPEG": _jpeg, "WebP": _webp, "TIFF": _tiff}[picture.container](content)
    found: list[Finding] = []
    for part in parts:
        found += _of(part)
    if picture.pages > 1:
        found.append(Finding("pages", f"the file has {picture.pages} pages or frames: only the first one was looked at"))
    if picture.lossy:
        found.append(Finding("lossy", f"the {picture.container} file is compressed with loss, which removes traces"))
    if picture.channels in (2, 4):
        found.append(Finding("alpha", "the file has an alpha channel, which no modality writes; it was left out"))
    if picture.channels >= 3 and picture.equal_channels:
        found.append(Finding("equal_channels", "a grey image that is stored in colour: all channels hold the same values"))
    return (*dict.fromkeys(found), *value_findings(picture.pixels, picture.bits))


def value_findings(pixels: NDArray[np.generic], bits: int) -> tuple[Finding, ...]:
    """What stored values (H, W) or (H, W, 3) of so many bits tell, of a DICOM object's frame too."""
    found = []
    if pixels.ndim == 3 and is_coloured(pixels):
        found.append(Finding("colour", "the colour channels differ: radiographs are grey"))
    if bits > 8:
        different = _different(pixels)
        if different <= 256:
            found.append(Finding("few_bits", f"{different} different values in {bits} bits: 8-bit data in a larger container"))
    height, width = pixels.shape[:2]
    if (width == height and width in _SIDES) or (
        width != height and max(width, height) <= 2048 and width % 64 == 0 and height % 64 == 0
    ):
        said = f"{width} x {height} pixels is a canvas that generators make (and so do many public data sets)"
        found.append(Finding("canvas", said))
    return tuple(found)


def is_coloured(pixels: NDArray[np.generic]) -> bool:
    """Whether the channels of (H, W, 3) uint8 differ by more than what a lossy codec does to grey, in 1 of 1000 pixels."""
    span = pixels.max(axis=-1).astype(np.int32) - pixels.min(axis=-1)
    return bool((span > 24).mean() > 0.001)


def _different(pixels: NDArray[np.generic]) -> int:
    """How many different values there are; of more than 256, some number above."""
    seen = np.unique(pixels.ravel()[:: max(1, pixels.size // 4096)])
    return int(len(seen) if len(seen) > 256 else len(np.unique(pixels)))


# ---- what was found, whatever the container ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """A piece of metadata. name: `c2pa`, `xmp`, or the keyword of a text."""

    name: str
    content: bytes


def _of(part: _Part) -> Iterator[Finding]:
    if part.name == "c2pa":
        yield Finding("c2pa", "a C2PA manifest is present; its signature was not checked")
    if part.name in ("c2pa", "xmp"):
        for match in dict.fromkeys(_SOURCE_TYPE.findall(part.content)):
            kind = match.decode("ascii")
            meaning = "made by a trained model or in a computer" if kind in _MADE else "as the file says of itself"
            yield Finding("digital_source_type", f"digital source type {kind}: {meaning}")
        return
    text = part.content.decode("utf-8", "replace").replace("\0", " ")
    shown = _shown(text)
    if part.name.lower() in _NOTES or _SETTINGS.search(text):
        yield Finding("generator_note", f"a note as generators write it, {_shown(part.name)}: {shown}")
    elif part.name.lower() in ("software", "creatortool", "processing software") and text.strip():
        yield Finding("software", f"written by {shown}")


def _shown(text: str) -> str:
    """A file's own words, shortened to one line of what can be printed."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= 120 else line[:117] + "..."


# ---- containers -------------------------------------------------------------------------------------------------------


def _png(content: bytes) -> Iterator[_Part]:
    """PNG chunks (W3C PNG, third edition §11.3.3; C2PA 2 §A.3 for caBX)."""
    at = 8
    while at + 12 <= len(content):
        length, name = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        body = content[at + 8 : at + 8 + length]
        at += 12 + length
        if name == b"caBX":
            yield _Part("c2pa", body)
        elif name == b"eXIf":
            yield from _exif(body)
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            keyword, _, rest = body.partition(b"\0")
            text = _png_text(name, rest)
            key = keyword.decode("latin-1")
            yield _Part("xmp" if key == "XML:com.adobe.xmp" else key, text)


def _png_text(name: bytes, rest: bytes) -> bytes:
    if name == b"tEXt":
        return rest.decode("latin-1").encode()
    if name == b"zTXt":
        return _inflated(rest[1:]).decode("latin-1").encode()
    # iTXt: compression flag and method, language tag, translated keyword, text
    parts = rest[2:].split(b"\0", 2)
    if len(parts) < 3:
        return b""
    return _inflated(parts[2]) if rest[:1] == b"\1" else parts[2]


def _inflated(packed: bytes) -> bytes:
    """At most `_TEXT_BYTES` of a text, nothing of a damaged one."""
    try:
        return zlib.decompressobj().decompress(packed, _TEXT_BYTES)
    except zlib.error:
        return b""


def _jpeg(content: bytes) -> Iterator[_Part]:
    """JPEG marker segments before the first scan (T.81 Annex B; APP11 boxes: T.86 and ISO 19566-5)."""
    boxes = b""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in (0xD9, 0xDA):
            break
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        body = content[at + 4 : at + 2 + length]
        at += 2 + max(length, 2)
        if marker == 0xEB and body[:2] == b"JP":
            boxes += body[8:]
        elif marker == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            yield _Part("xmp", body[29:])
        elif marker == 0xE1 and body.startswith(b"http://ns.adobe.com/xmp/extension/\0"):
            yield _Part("xmp", body[35:])
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            yield from _exif(body[6:])
        elif marker == 0xFE:
            yield _Part("comment", body)
    if b"jumb" in boxes[:16] and b"c2pa" in boxes[:4096]:
        yield _Part("c2pa", boxes)


def _webp(content: bytes) -> Iterator[_Part]:
    """RIFF chunks of a WebP (RFC 9649 §2; C2PA 2 §A.3)."""
    at = 12
    while at + 8 <= len(content):
        name, length = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        body = content[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
        if name == b"C2PA":
            yield _Part("c2pa", body)
        elif name == b"XMP ":
            yield _Part("xmp", body)
        elif name == b"EXIF":
            yield from _exif(body.removeprefix(b"Exif\0\0"))


_SOFTWARE, _DESCRIPTION, _XMP, _EXIF_IFD, _USER_COMMENT, _C2PA = 305, 270, 700, 0x8769, 0x9286, 0xCD41
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}


def _tiff(content: bytes) -> Iterator[_Part]:
    """The tags of a TIFF's first directory (TIFF 6.0 §2; 0xCD41 of C2PA 2 §A.3)."""
    return _exif(content)


def _exif(content: bytes) -> Iterator[_Part]:
    """Tags of a TIFF structure's first directory and its Exif directory; an unknown or damaged one has none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4])
    if order is None:
        return
    pending = [struct.unpack(order + "I", content[4:8])[0]] if len(content) >= 8 else []
    seen: set[int] = set()
    while pending:
        at = pending.pop()
        if at in seen or at + 2 > len(content):
            continue
        seen.add(at)
        (count,) = struct.unpack_from(order + "H", content, at)
        for entry in range(at + 2, min(at + 2 + 12 * count, len(content) - 11), 12):
            tag, kind, number, value = struct.unpack_from(order + "HHII", content, entry)
            length = _SIZES.get(kind, 0) * number
            body = content[entry + 8 : entry + 8 + length] if length <= 4 else content[value : value + length]
            if tag == _EXIF_IFD:
                pending.append(value)
            elif tag == _C2PA:
                yield _Part("c2pa", body)
            elif tag == _XMP:
                yield _Part("xmp", body)
            elif tag in (_SOFTWARE, _DESCRIPTION):
                yield _Part("Software" if tag == _SOFTWARE else "description", body)
            elif tag == _USER_COMMENT:
                yield _Part("comment", _comment(body, order))


def _comment(body: bytes, order: str) -> bytes:
    """Exif UserComment: eight bytes name the characters (Exif 3.0 §4.6.6)."""
    if body.startswith(b"UNICODE\0"):
        return body[8:].decode("utf-16-be" if order == ">" or body[8:9] == b"\0" else "utf-16-le", "replace").encode()
    return body[8:]
