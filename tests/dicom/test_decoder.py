"""The decoding child process under a misbehaving codestream, limits, signals and forks: real processes, real decoders."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from corpus import packaged
from making import RLE, encapsulated, made, pixels

from ledger.core.errors import Refused, Unreadable
from ledger.core.pixels import PixelHeader
from ledger.dicom import Decoder, Limits, read

HEADER = PixelHeader(0, 2, 1, 1, 2, 2, 1)
GOOD = struct.pack("<16I", 1, 64, *[0] * 14) + b"\3\0\1\2\3\0"
BOMB_EDGE = 20000


def bomb() -> bytes:
    """An RLE stream of 20000 x 20000 pixels from 6 MB: one run after another."""
    return struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\7" * (BOMB_EDGE * BOMB_EDGE // 128)


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    made_here = Decoder()
    yield made_here
    made_here.close()


def child_of(decoder: Decoder) -> subprocess.Popen[bytes]:
    decoder.tiles("RLE", [GOOD], HEADER, (8, 8), "sha256")
    child = decoder._child
    if child is None:
        raise RuntimeError("no child process")
    return child


def test_importing_starts_nothing() -> None:
    program = "import ledger.dicom, os, subprocess; subprocess.run(['ps', '--ppid', str(os.getpid()), '-o', 'comm='])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ps"]


def test_one_child_answers_many_requests(decoder: Decoder) -> None:
    first = child_of(decoder)
    tiles = decoder.tiles("RLE", [GOOD], HEADER, (8, 8), "sha256")
    expected = read(made(pixels(2, 2, b"\0\1\2\3"))).digest("px1-sha256").tiles
    assert tuple(tiles) == expected
    assert child_of(decoder) is first


def test_a_rust_panic_and_other_failures_are_refusals_that_the_child_survives(decoder: Decoder) -> None:
    first = child_of(decoder)
    short = struct.pack("<16I", 1, 64, *[0] * 14) + b"\3\0"
    for family, stream in (
        ("RLE", b"\1"),
        ("RLE", short),
        ("RLE", b"\xff" * 100),
        ("JPEG2000", b"\xff\x4f\xff\x51" + bytes(90)),
        ("JPEGLS", b""),
    ):
        with pytest.raises((Refused, Unreadable), match="the decoder could not decode frame 0"):
            decoder.tiles(family, [stream], HEADER, (8, 8), "sha256")
    assert child_of(decoder) is first


def test_a_decoder_that_gives_another_size_is_refused(decoder: Decoder) -> None:
    import jpeg_ls

    stream = bytes(jpeg_ls.encode_array(np.zeros((9, 9), np.uint8)))
    with pytest.raises(Refused, match="the decoder gave 81 samples"):
        decoder.tiles("JPEGLS", [stream], HEADER, (8, 8), "sha256")


def test_too_much_memory_says_nothing_about_the_image(decoder: Decoder) -> None:
    with_little = Decoder(Limits(decoder_memory_bytes=600 << 20))
    header = PixelHeader(0, 2, 1, 1, BOMB_EDGE, BOMB_EDGE, 1)
    with pytest.raises(Unreadable, match=r"frame 0: (MemoryError|PanicException)"):
        with_little.tiles("RLE", [bomb()], header, (8, 8), "sha256")
    assert len(decoder.tiles("RLE", [bomb()], header, (8, 8), "sha256")[0]) == 157 * 157
    with_little.tiles("RLE", [GOOD], HEADER, (8, 8), "sha256")
    with_little.close()


def test_too_much_time_says_nothing_about_the_image_and_the_next_image_gets_a_new_child() -> None:
    hasty = Decoder(Limits(decoder_time_s=1.0))
    first = child_of(hasty)
    os.kill(first.pid, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(Unreadable, match="the decoder took more than 1 s"):
        hasty.tiles("RLE", [GOOD], HEADER, (8, 8), "sha256")
    assert time.monotonic() - started < 5
    assert child_of(hasty) is not first
    hasty.close()


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL])
def test_a_crash_in_the_middle_names_the_signal(decoder: Decoder, number: signal.Signals) -> None:
    first = child_of(decoder)
    os.kill(first.pid, signal.SIGSTOP)

    def crash() -> None:
        os.kill(first.pid, number)
        os.kill(first.pid, signal.SIGCONT)

    threading.Timer(0.2, crash).start()
    with pytest.raises(Unreadable, match=f"the decoder ended: signal {number.name}"):
        decoder.tiles("RLE", [GOOD], HEADER, (8, 8), "sha256")
    assert child_of(decoder) is not first


def test_a_child_that_died_between_images_is_replaced(decoder: Decoder) -> None:
    first = child_of(decoder)
    first.kill()
    first.wait()
    assert child_of(decoder) is not first


def test_threads_share_one_child(decoder: Decoder) -> None:
    images = [
        read(packaged()[name], decoder=decoder) for name in ("MR_small_RLE.dcm", "emri_small_RLE.dcm", "SC_rgb_rle.dcm")
    ] * 4
    expected = [
        str(read(packaged()[name]).digest("px1-sha256")) for name in ("MR_small.dcm", "emri_small.dcm", "SC_rgb.dcm")
    ] * 4
    found: dict[int, str] = {}

    def work(index: int) -> None:
        found[index] = str(images[index].digest("px1-sha256"))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[index] for index in range(len(images))] == expected


def test_a_fork_does_not_share_the_child(decoder: Decoder) -> None:
    first = child_of(decoder)
    pid = os.fork()
    if pid == 0:
        same = child_of(decoder).pid == first.pid
        decoder.close()
        os._exit(1 if same else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert child_of(decoder) is first


def test_the_child_gets_none_of_our_environment(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANSEAL_SECRET", "1")
    assert b"SCANSEAL_SECRET" not in Path(f"/proc/{child_of(decoder).pid}/environ").read_bytes()


def test_an_image_whose_decoding_is_stopped_is_sealed_raw() -> None:
    slow = Decoder(Limits(decoder_time_s=0.001))
    image = read(made(pixels(2, 2, encapsulated(GOOD)), syntax=RLE), decoder=slow)
    assert image.default_profile() == "raw1-sha256"
    assert "took more than 0.001 s" in str(image.refusal)
    with pytest.raises(Unreadable, match="took more"):
        image.digest("px1-sha256")
    slow.close()
