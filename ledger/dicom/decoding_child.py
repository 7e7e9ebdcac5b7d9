"""The child process that decodes: one request after another on standard input, hashes on standard output.

`python -m ledger.dicom.decoding_child MEMORY_BYTES`. It runs decoders in C on bytes from strangers, so it has a limit on its
address space, may write no file, and what it answers is only ever read as numbers and hashes. Its parent ends it when it is
too slow. Messages are: u32 length of a JSON head, u64 length of a body, head, body; the answer's body is tile hashes.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, Final, cast

import numpy as np

from ledger.core.pixels import PixelHeader, Samples, frame_tiles
from ledger.dicom.codestreams import with_full_scans

MESSAGE_HEAD: Final = struct.Struct("<IQ")
OUT_OF_MEMORY: Final = 3


class _NotTheFrameError(Exception):
    """A decoder gave something else than the frame that the data set describes."""


def _jpeg(stream: bytes, _header: PixelHeader, _bits: int) -> Samples:
    import libjpeg.utils

    # colour_transform 0: JPGFLAG_MATRIX_COLORTRANSFORMATION_NONE, whatever an Adobe marker says.
    return cast(Samples, libjpeg.utils.decode(with_full_scans(stream), 0))


def _jpegls(stream: bytes, header: PixelHeader, _bits: int) -> Samples:
    import jpeg_ls  # type: ignore[import-untyped]

    buffer, about = jpeg_ls.decode_buffer(stream)
    values = np.frombuffer(buffer, np.uint8 if about["bits_per_sample"] <= 8 else "<u2")
    if header.samples_per_pixel > 1 and about["interleave_mode"] == 0:
        return values.reshape(header.samples_per_pixel, header.rows, header.columns).transpose(1, 2, 0)
    return values


def _jpeg2000(stream: bytes, _header: PixelHeader, _bits: int) -> Samples:
    import openjpeg.utils

    return cast(Samples, openjpeg.utils.decode(stream))


def _rle(stream: bytes, header: PixelHeader, bits_allocated: int) -> Samples:
    from rle.utils import decode_pixel_data

    about: dict[str, Any] = {"rows": header.rows, "columns": header.columns, "bits_allocated": bits_allocated, "byteorder": "<"}
    buffer = decode_pixel_data(stream, version=2, **about)
    values = np.frombuffer(buffer, f"<u{bits_allocated // 8}")
    return values.reshape(header.samples_per_pixel, header.rows, header.columns).transpose(1, 2, 0)


_DECODERS: Final[dict[str, Callable[[bytes, PixelHeader, int], Samples]]] = {
    "JPEG": _jpeg,
    "JPEGLS": _jpegls,
    "JPEG2000": _jpeg2000,
    "HTJ2K": _jpeg2000,
    "RLE": _rle,
}


def decode(family: str, stream: bytes, header: PixelHeader, bits_allocated: int) -> Samples:
    """One frame (rows, columns, samples) of unsigned or signed cells at least `header.width` bytes wide.

    Never applies a colour transform but JPEG 2000's own. Raises whatever a decoder raises, which may be a BaseException.
    """
    values = _DECODERS[family](stream, header, bits_allocated)
    shape = (header.rows, header.columns, header.samples_per_pixel)
    if values.size != shape[0] * shape[1] * shape[2] or values.dtype.kind not in "ui":
        raise _NotTheFrameError(f"the decoder gave {values.size} samples of type {values.dtype}")
    values = values.reshape(shape)
    return values if values.dtype.itemsize >= header.width else values.astype(f"<{values.dtype.kind}{header.width}")


def _answer(head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    header = PixelHeader(**{**head["header"], "palette": bytes(32)})
    hashes: list[bytes] = []
    at = 0
    for index, length in enumerate(head["lengths"]):
        stream, at = body[at : at + length], at + length
        try:
            frame = decode(head["family"], stream, header, head["bits_allocated"])
            hashes += frame_tiles(frame, header, head["hash_name"], bits=head["bits_stored"])
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 pylibjpeg-rle raises a BaseException (a Rust panic)
            # Out of memory, and panics that may come from it, say nothing about the image.
            key = "refused" if isinstance(error, Exception) and not isinstance(error, MemoryError) else "stopped"
            return {key: f"frame {index}: {type(error).__name__}: {error}"}, b""
    return {}, b"".join(hashes)


def _limit(memory_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # no such limits on this system; the parent's time limit stands
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _exactly(source: BinaryIO, length: int) -> bytes:
    received = source.read(length)
    if len(received) != length:
        raise SystemExit(0)
    return received


def main() -> None:
    """Answer requests until standard input ends."""
    _limit(int(sys.argv[1]))
    # Decoders that print must not disturb the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        head_length, body_length = MESSAGE_HEAD.unpack(_exactly(sys.stdin.buffer, MESSAGE_HEAD.size))
        head = json.loads(_exactly(sys.stdin.buffer, head_length))
        try:
            found, hashes = _answer(head, _exactly(sys.stdin.buffer, body_length))
        except MemoryError:
            raise SystemExit(OUT_OF_MEMORY) from None
        text = json.dumps(found).encode()
        answers.write(MESSAGE_HEAD.pack(len(text), len(hashes)) + text + hashes)
        answers.flush()


if __name__ == "__main__":
    main()
