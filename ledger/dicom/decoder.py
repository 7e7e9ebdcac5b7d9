"""The parent's side of the decoding child process: start it when first needed, give it work, end it when it misbehaves.

A codestream that a decoder can't decode is Refused. A crash, an abort, a timeout or too much memory is Unreadable instead:
another machine may get further, so it is no statement about the image; the next request gets a new child. What this does
not do: a codestream that takes the child over could make it lie about that image and the following ones.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import ledger
from ledger.core.errors import Refused, Unreadable
from ledger.core.pixels import PixelHeader
from ledger.dicom.codestreams import HTJ2K, JPEG, JPEG2000, JPEGLS, RLE
from ledger.dicom.decoding_child import MESSAGE_HEAD, OUT_OF_MEMORY
from ledger.dicom.limits import DEFAULT_LIMITS, Limits

_PACKAGES: Final = {
    JPEG: "pylibjpeg-libjpeg",
    JPEGLS: "pyjpegls",
    JPEG2000: "pylibjpeg-openjpeg",
    HTJ2K: "pylibjpeg-openjpeg",
    RLE: "pylibjpeg-rle",
}
_ANSWER_HEAD_LIMIT: Final = 1 << 20
_REASON_LENGTH: Final = 200


@cache
def decoder_name(family: str) -> str | None:
    """The decoder of a codestream family with its version, as `pylibjpeg-libjpeg 2.5.0`; None when there is none."""
    package = _PACKAGES.get(family)
    return None if package is None else f"{package} {version(package)}"


class Decoder:
    """A decoding child process. Safe to share among threads, which wait for each other; nothing starts before the first use."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def tiles(
        self, family: str, streams: Sequence[bytes], header: PixelHeader, bits: tuple[int, int], hash_name: str
    ) -> list[tuple[bytes, ...]]:
        """The tile hashes of each frame (as `frame_tiles` gives them) of these codestreams; `bits` is (allocated, stored).

        Raises Refused when a frame can't be decoded or is not what the header says, Unreadable when the child was stopped.
        """
        head: dict[str, Any] = {
            "family": family,
            "lengths": [len(stream) for stream in streams],
            "header": {name: value for name, value in asdict(header).items() if name != "palette"},
            "bits_allocated": bits[0],
            "bits_stored": bits[1],
            "hash_name": hash_name,
        }
        with self._lock:
            hashes = self._exchange(json.dumps(head).encode(), streams, 32 * header.frames * header.tiles_per_frame)
        per_frame = 32 * header.tiles_per_frame
        return [
            tuple(hashes[at : at + 32] for at in range(start, start + per_frame, 32))
            for start in range(0, len(hashes), per_frame)
        ]

    def close(self) -> None:
        """End the child process. The next use starts another."""
        with self._lock:
            self._end()

    def _exchange(self, head: bytes, streams: Sequence[bytes], expected: int) -> bytes:
        late = threading.Event()
        child = self._running()

        def out_of_time() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(self._limits.decoder_time_s, out_of_time)
        timer.daemon = True
        timer.start()
        try:
            answer = self._ask(child, head, streams, expected)
        except (OSError, EOFError, ValueError) as error:
            child.kill()
            code = child.wait()
            self._end()
            if late.is_set():
                raise Unreadable(f"the decoder took more than {self._limits.decoder_time_s:g} s") from error
            raise Unreadable(f"the decoder ended: {_ending(code)}") from error
        except (Refused, Unreadable):
            raise
        except BaseException:
            self._end()  # interrupted in the middle of an answer
            raise
        finally:
            timer.cancel()
        if late.is_set():  # the answer came just before the end
            self._end()
        return answer

    def _ask(self, child: subprocess.Popen[bytes], head: bytes, streams: Sequence[bytes], expected: int) -> bytes:
        if child.stdin is None or child.stdout is None:
            raise EOFError
        child.stdin.write(MESSAGE_HEAD.pack(len(head), sum(map(len, streams))) + head)
        for stream in streams:
            child.stdin.write(stream)
        child.stdin.flush()
        head_length, body_length = MESSAGE_HEAD.unpack(_exactly(child, MESSAGE_HEAD.size))
        if head_length > _ANSWER_HEAD_LIMIT or body_length not in (0, expected):
            raise ValueError("an answer of the wrong size")
        answer = json.loads(_exactly(child, head_length))
        body = _exactly(child, body_length)
        if not isinstance(answer, dict):
            raise ValueError("an answer of the wrong form")
        for key, error in (("refused", Refused), ("stopped", Unreadable)):
            if key in answer:
                printable = "".join(character if character.isprintable() else " " for character in str(answer[key]))
                raise error(f"the decoder could not decode {printable[:_REASON_LENGTH]}")
        if body_length != expected:
            raise ValueError("an answer without hashes")
        return body

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._owner != os.getpid():
            self._child = None  # after a fork the child process is still the other's
        if self._child is not None and self._child.poll() is not None:
            self._end()
        if self._child is None:
            entries = [str(Path(entry).parent) for entry in ledger.__path__] + [entry for entry in sys.path if entry]
            self._child = subprocess.Popen(  # noqa: S603 our own interpreter and module
                [sys.executable, "-P", "-m", "ledger.dicom.decoding_child", str(self._limits.decoder_memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PYTHONPATH": os.pathsep.join(entries), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
            self._owner = os.getpid()
            atexit.register(self.close)
        return self._child

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None or self._owner != os.getpid():
            return
        atexit.unregister(self.close)
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # bytes still buffered for a child that is gone
                    continue


def _exactly(child: subprocess.Popen[bytes], length: int) -> bytes:
    received = child.stdout.read(length) if child.stdout is not None else b""
    if len(received) != length:
        raise EOFError
    return received


def _ending(code: int) -> str:
    if code < 0:
        return f"signal {signal.Signals(-code).name}" if -code in {s.value for s in signal.Signals} else f"signal {-code}"
    return "out of memory" if code == OUT_OF_MEMORY else f"exit code {code}"


@cache
def shared_decoder() -> Decoder:
    """The process-wide decoder with default limits, for callers that give none."""
    return Decoder()
