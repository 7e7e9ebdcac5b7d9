"""The decoded frames of an image as plain values, one at a time: for comparing two images that a verifier has both of.

Compressed frames are decoded in a child process of their own, under the same limits and by the same decoders as digests; it
answers with values where `ledger.dicom.decoding_child` answers with hashes. `python -m ledger.dicom.frames MEMORY_BYTES` is
that child.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import ledger
from ledger.core.errors import Refused, Unreadable
from ledger.core.pixels import Kind, PixelHeader, Samples
from ledger.dicom.codestreams import RLE, describe
from ledger.dicom.decoder import Decoder
from ledger.dicom.decoding_child import MESSAGE_HEAD, OUT_OF_MEMORY, _exactly, _limit, decode
from ledger.dicom.image import Image, _check
from ledger.dicom.limits import Limits
from ledger.dicom.native import native_frames


def frame_values(image: Image) -> tuple[PixelHeader, Iterator[Samples]]:
    """The image's px1 header, and its frames: arrays (rows, columns, samples) of the header's dtype, read only once, in order.

    Values are those of FORMAT.md §1.2 (masked to BitsStored, sign extended); a lossy image's are those of this package's
    decoder, without colour transform but JPEG 2000's own. Raises Refused when the image has no such values, Unreadable when a
    limit or a crash stopped the decoder, some of it only while frames are read.
    """
    if image.kind == "raw1":
        raise Refused("an unknown transfer syntax")
    element = image._pixels
    if element is None:
        raise Refused("the object has no pixel element")
    module = image._reader.module(lossy=image.kind == "cs1")
    header = module.header(image._reader.palette(module, "sha256"))
    if not image._family:
        if element.encapsulated:
            raise Refused("encapsulated pixel data in a native transfer syntax")
        native = native_frames(image._data, element, image._encoding, module)
        return header, (plain_values(frame, header, module.bits_stored) for frame in native)
    if image.decoder is None:
        raise Refused(f"no decoder for {image._family.lower()} codestreams")
    if module.bits_allocated == 1 or module.is_float:
        raise Refused(f"BitsAllocated {module.bits_allocated} in a codestream")
    limits = image._limits
    frame_bytes = module.rows * module.columns * module.samples * module.bits_allocated // 8
    if frame_bytes > limits.frame_bytes or frame_bytes * module.frames > limits.decoded_bytes:
        raise Unreadable(f"{module.frames} decoded frames of {frame_bytes} bytes are more than is allowed")
    streams = image._streams
    if image._family != RLE:
        for index, stream in enumerate(streams):
            _check(describe(stream, image._family), module, index, image.kind == "px1")
    bits = (module.bits_allocated, module.bits_stored)
    decoder = _shared(limits)
    return header, (decoder.values(image._family, stream, header, bits) for stream in streams)


def plain_values(frame: Samples, header: PixelHeader, bits: int) -> Samples:
    """The values of a frame's cells in the header's dtype: the low `bits` bits, sign extended when the header is signed."""
    if header.kind == Kind.FLOAT:
        return frame
    values = frame.astype(header.dtype, copy=False)
    unused = 8 * header.width - bits
    if unused:
        values = np.left_shift(values, unused)
        np.right_shift(values, unused, out=values)
    return values


class _FrameDecoder(Decoder):
    """The decoding child process that answers with values."""

    def values(self, family: str, stream: bytes, header: PixelHeader, bits: tuple[int, int]) -> Samples:
        head = {
            "family": family,
            "header": {name: value for name, value in asdict(header).items() if name != "palette"},
            "bits_allocated": bits[0],
            "bits_stored": bits[1],
        }
        with self._lock:
            body = self._exchange(json.dumps(head).encode(), [stream], header.frame_bytes)
        return np.frombuffer(body, header.dtype).reshape(header.rows, header.columns, header.samples_per_pixel)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._owner != os.getpid():
            self._child = None
        if self._child is not None and self._child.poll() is not None:
            self._end()
        if self._child is None:
            entries = [str(Path(entry).parent) for entry in ledger.__path__] + [entry for entry in sys.path if entry]
            self._child = subprocess.Popen(  # noqa: S603 our own interpreter and module
                [sys.executable, "-P", "-m", "ledger.dicom.frames", str(self._limits.decoder_memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PYTHONPATH": os.pathsep.join(entries), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
            self._owner = os.getpid()
            atexit.register(self.close)
        return self._child


@cache
def _shared(limits: Limits) -> _FrameDecoder:
    return _FrameDecoder(limits)


# ---- the child process ------------------------------------------------------------------------------------------------


def _answer(head: dict[str, Any], stream: bytes) -> tuple[dict[str, str], bytes]:
    header = PixelHeader(**{**head["header"], "palette": bytes(32)})
    try:
        frame = decode(head["family"], stream, header, head["bits_allocated"])
        return {}, plain_values(frame, header, head["bits_stored"]).tobytes()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 pylibjpeg-rle raises a BaseException (a Rust panic)
        key = "refused" if isinstance(error, Exception) and not isinstance(error, MemoryError) else "stopped"
        return {key: f"a frame: {type(error).__name__}: {error}"}, b""


def main() -> None:
    """Answer requests until standard input ends."""
    _limit(int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        head_length, body_length = MESSAGE_HEAD.unpack(_exactly(sys.stdin.buffer, MESSAGE_HEAD.size))
        head = json.loads(_exactly(sys.stdin.buffer, head_length))
        try:
            found, values = _answer(head, _exactly(sys.stdin.buffer, body_length))
        except MemoryError:
            raise SystemExit(OUT_OF_MEMORY) from None
        text = json.dumps(found).encode()
        answers.write(MESSAGE_HEAD.pack(len(text), len(values)) + text)
        answers.write(values)
        answers.flush()


if __name__ == "__main__":
    main()
