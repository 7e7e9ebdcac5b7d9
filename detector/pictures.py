"""Pictures that are no DICOM objects (PNG, JPEG, TIFF, WebP), read into arrays of their stored values.

Pillow decodes; nothing is resampled, windowed or converted to grey here but what has equal colour channels. The format itself
never reaches the detector: what it tells is reported beside the opinion (`detector.formats`).
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin

FILE_BYTES: Final = 256 << 20
"""The largest file that is read."""
PIXELS: Final = 80_000_000
"""The largest picture: below the size at which Pillow suspects a decompression bomb, and four times the largest radiograph."""
SUFFIXES: Final = frozenset((".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".webp"))
"""Names in folders that are taken for pictures (a file that is named is read whatever its name)."""

Container = Literal["PNG", "JPEG", "TIFF", "WebP"]
_FORMATS: Final[dict[str, Container]] = {"PNG": "PNG", "JPEG": "JPEG", "MPO": "JPEG", "TIFF": "TIFF", "WEBP": "WebP"}
_MAGICS: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PHOTOMETRIC, _BITS = 262, 258
_LOSSY_TIFF: Final = frozenset(("jpeg", "tiff_jpeg", "webp"))


class PictureUnreadable(Exception):
    """The file is no picture that can be read whole. The message says what is wrong with it."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture as stored.

    pixels: (H, W) uint8 or uint16, or (H, W, 3) uint8 where the colour channels differ; turned as its orientation tag says.
    bits: of a stored value, as its header says (16-bit colour is read as 8). inverted: small values are bright (TIFF
    WhiteIsZero of 16 bits). lossy: the file is a lossy one. pages: how many the file has, of which this is the first.
    channels: of the file, alpha included. equal_channels: whether the colour channels hold the same values.
    """

    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    container: Container
    bits: int
    inverted: bool = False
    lossy: bool = False
    pages: int = 1
    channels: int = 1
    equal_channels: bool = True


def is_picture(start: bytes) -> bool:
    """Whether a file that begins so (12 bytes are enough) is of a format that `read` knows."""
    return start.startswith(_MAGICS) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")


def content_of(path: Path) -> bytes:
    """All bytes of a regular file of at most `FILE_BYTES`. Raises PictureUnreadable."""
    try:
        if not path.is_file():
            raise PictureUnreadable("not a regular file" if path.exists() else "no such file")
        size = path.stat().st_size
        if size > FILE_BYTES:
            raise PictureUnreadable(f"a file of {size} bytes: {FILE_BYTES} are allowed")
        return path.read_bytes()
    except OSError as error:
        raise PictureUnreadable(f"the file can't be read ({error.strerror})") from error


def read(content: bytes) -> Picture:
    """The picture in a file's bytes; of several pages or frames the first one.

    Raises PictureUnreadable for what is no PNG, JPEG, TIFF or WebP, is larger than `PIXELS`, or ends too early.
    """
    if not content:
        raise PictureUnreadable("an empty file")
    if not is_picture(content[:12]):
        raise PictureUnreadable("neither DICOM nor PNG, JPEG, TIFF or WebP")
    try:
        with warnings.catch_warnings():
            # Pillow says so of a picture that it takes for a bomb, and of damaged metadata (which is not read here).
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "TIFF", "WEBP")) as opened:
                return _picture(opened, content)
    except PictureUnreadable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureUnreadable(f"more than {PIXELS} pixels") from error
    except MemoryError as error:
        raise PictureUnreadable("decoding it takes more memory than there is") from error
    except Exception as error:  # Pillow raises whatever its decoders stumble over: OSError, SyntaxError, struct.error ...
        said = " ".join(str(error).split())[:160] or type(error).__name__
        if "cannot identify image file" in said:
            said = "its header is damaged, or of a kind that Pillow can't read"
        raise PictureUnreadable(f"the picture can't be decoded: {said}") from error


def _picture(opened: Image.Image, content: bytes) -> Picture:
    width, height = opened.size
    if width * height > PIXELS:
        raise PictureUnreadable(f"{width} x {height} pixels: {PIXELS} are allowed")
    container = _FORMATS[str(opened.format)]
    # The tags of a TIFF are gone once its pixels are decoded.
    tags: dict[int, Any] = dict(opened.tag_v2) if isinstance(opened, TiffImagePlugin.TiffImageFile) else {}
    compression, bands = str(opened.info.get("compression", "")), len(opened.getbands())
    bits = _bits(container, content, tags)
    opened.load()
    ImageOps.exif_transpose(opened, in_place=True)
    pixels = _values(opened)
    inverted = tags.get(_PHOTOMETRIC) == 0 and opened.mode in ("I;16", "I;16B", "I", "F")
    equal = True
    if pixels.ndim == 3:
        equal = bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all())
        pixels = np.ascontiguousarray(pixels[..., 0]) if equal else pixels
    return Picture(
        pixels,
        container,
        min(bits, 8 * pixels.itemsize),
        inverted,
        container == "JPEG" or compression in _LOSSY_TIFF or (container == "WebP" and b"VP8 " in _riff(content)),
        int(getattr(opened, "n_frames", 1)),
        bands,
        equal,
    )


def _values(opened: Image.Image) -> Any:
    """(H, W) uint8 or uint16, or (H, W, 3) uint8."""
    mode = opened.mode
    if mode == "1":
        return np.asarray(opened, np.uint8) * np.uint8(255)
    if mode == "L":
        return np.asarray(opened)
    if mode in ("LA", "La"):
        return np.asarray(opened)[..., 0]
    if mode.startswith("I;16"):
        return np.asarray(opened).astype(np.uint16)
    if mode in ("I", "F"):
        return _as_sixteen(np.asarray(opened))
    if mode in ("RGB", "RGBA", "RGBX"):
        return np.asarray(opened)[..., :3]
    return np.asarray(opened.convert("RGBA" if mode in ("P", "PA") else "RGB"))[..., :3]


def _as_sixteen(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Integers that fit stay as they are; others, and floating point numbers, are brought to 0..65535."""
    if not np.isfinite(values).all():
        raise PictureUnreadable("pixels that are no numbers")
    lowest, highest = float(values.min()), float(values.max())
    if values.dtype.kind in "iu" and lowest >= 0 and highest <= 65535:
        return values.astype(np.uint16)
    span = highest - lowest
    scaled = (values.astype(np.float64) - lowest) * (65535 / span if span else 0)
    return np.rint(scaled).astype(np.uint16)


def _bits(container: Container, content: bytes, tags: dict[int, Any]) -> int:
    if container == "PNG":
        return max(content[24], 8)  # IHDR: bit depth
    if container == "TIFF":
        return max(8, int(np.max(tags.get(_BITS, 8))))
    return 8


def _riff(content: bytes) -> tuple[bytes, ...]:
    """The names of a WebP's chunks."""
    names, at = [], 12
    while at + 8 <= len(content):
        names.append(content[at : at + 4])
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    return tuple(names)
