"""Forwarding gives the PACS the received bytes, whatever the PACS does in between, and is not held up by one image."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from ledger.agent.association import Peer
from ledger.agent.forwarding import echo
from ledger.core.errors import TryLater
from ledger.store.spool import Sealing
from tests.agent.conftest import Desk
from tests.agent.modality import data_set, digest, image, images, instance, stripped
from tests.journeys.agents import until
from tests.journeys.conftest import free_port
from tests.simulators.pacs import REFUSALS, Pacs, pacs


@pytest.fixture
def port() -> int:
    return free_port()


def assert_has(one: Pacs, *paths: Path) -> None:
    assert one.held() == {instance(path): [digest(data_set(path))] for path in paths}


@pytest.mark.parametrize("fault", [*REFUSALS, "hangs", "aborts", "keeps and aborts"])
def test_what_a_pacs_does_not_take_is_sent_again_until_it_does(desk: Desk, tmp_path: Path, port: int, fault: str) -> None:
    with pacs(port) as one:
        modality, paths = desk.listen(), images(2, tmp_path / "images")
        one.fault = fault
        desk.forward(port)
        modality.send_until_taken(*paths)
        until(lambda: desk.said, "the trouble")
        assert {row.forward for row in desk.rows()} == {"waiting"}
        one.fault = None
        one.released.set()
        desk.until_sent(2, hurry=fault != "aborts")
        assert_has(one, *paths)


def test_a_slow_pacs_holds_up_no_reception(desk: Desk, tmp_path: Path, port: int) -> None:
    with pacs(port) as one:
        one.fault, one.delay_s = "slow", 1.5
        modality, paths = desk.listen(), images(4, tmp_path / "images")
        desk.forward(port, timeout_s=10.0)
        modality.send_until_taken(*paths)
        assert len(one.stored) < 4
        desk.until_sent(4)
        assert_has(one, *paths)
        assert one.asked == 4


def test_a_warning_is_a_success(desk: Desk, tmp_path: Path, port: int) -> None:
    with pacs(port) as one:
        one.fault = "warns"
        (path,) = images(1, tmp_path / "images")
        modality = desk.listen()
        desk.forward(port)
        modality.send_until_taken(path)
        desk.until_sent(1)
        assert_has(one, path)


@pytest.mark.parametrize("fault", [*REFUSALS, "aborts", "hangs"])
def test_an_image_that_a_pacs_never_takes_keeps_no_other_waiting(desk: Desk, tmp_path: Path, port: int, fault: str) -> None:
    with pacs(port) as one:
        modality, paths = desk.listen(), images(4, tmp_path / "images")
        one.fault, one.only = fault, instance(paths[0])
        desk.forward(port, timeout_s=1.0)
        modality.send_until_taken(*paths)
        desk.until_sent(3, hurry=False)
        assert_has(one, *paths[1:])
        (left,) = [row for row in desk.rows() if row.forward == "waiting"]
        assert desk.spool.path(left).exists()
        one.fault = None
        one.released.set()


def test_a_pacs_that_is_down_gets_everything_when_it_is_up(desk: Desk, tmp_path: Path, port: int) -> None:
    modality, paths = desk.listen(), images(3, tmp_path / "images")
    forwarder = desk.forward(port)
    modality.send_until_taken(*paths)
    until(lambda: "out of reach" in (forwarder.last_error or ""), "the trouble")
    with pacs(port) as one:
        desk.until_sent(3)
        assert_has(one, *paths)
        until(lambda: forwarder.last_error is None, "the end of the trouble")


def test_a_transfer_syntax_that_the_pacs_does_not_take_waits_and_others_go(desk: Desk, tmp_path: Path, port: int) -> None:
    with pacs(port, [ExplicitVRLittleEndian]) as one:
        modality, path = desk.listen(), image(1, tmp_path / "images")
        compressed = pydicom.dcmread(image(2, tmp_path / "images"))
        compressed.compress(JPEG2000Lossless, generate_instance_uid=False)
        file = tmp_path / "compressed.dcm"
        compressed.save_as(file)
        part = desk.spool.part()
        part.write_bytes(file.read_bytes())
        desk.spool.take(part, "ct", forward=True)
        desk.forward(port)
        modality.send_until_taken(path)
        desk.until_sent(1, hurry=False)
        assert_has(one, path)
        assert any("does not take CT Image Storage in JPEG 2000" in word for word in desk.said)
        one.stop()
        one.start()
        desk.until_released()
        desk.until_sent(2)
        assert_has(one, path, file)


def test_what_was_postponed_by_a_clock_that_was_ahead_is_not_waited_for(desk: Desk, tmp_path: Path, port: int) -> None:
    modality, (path,) = desk.listen(), images(1, tmp_path / "images")
    modality.send_until_taken(path)
    two_hours = int((time.time() + 7200) * 1e6)
    desk.spool.book.postpone_forward({row.number: two_hours for row in desk.rows()})
    with pacs(port) as one:
        desk.forward(port)
        desk.until_sent(1)
        assert_has(one, path)


@pytest.mark.parametrize("content", [b"", b"not DICOM at all", bytes(132), b"\0" * 128 + b"DICM"], ids=len)
def test_a_file_that_cannot_be_sent_stays_and_others_go(desk: Desk, tmp_path: Path, port: int, content: bytes) -> None:
    part = desk.spool.part()
    part.write_bytes(content)
    desk.spool.take(part, "ct", forward=True)
    only_meta = desk.spool.part()
    only_meta.write_bytes((whole := image(9, tmp_path).read_bytes())[: len(whole) - len(data_set(tmp_path / "image00009.dcm"))])
    desk.spool.take(only_meta, "ct", forward=True)
    with pacs(port) as one:
        modality, (path,) = desk.listen(), images(1, tmp_path / "images")
        desk.forward(port)
        modality.send_until_taken(path)
        desk.until_sent(1)
        assert_has(one, path)
        assert len(list(desk.spool.folder.glob("*.dcm"))) == 3
        assert one.asked == 1


@contextmanager
def storescp(folder: Path, port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """DCMTK's, that keeps the bytes exactly as they come."""
    folder.mkdir()
    command = ["storescp", "-aet", "ORTHANC", "+B", "-od", str(folder), *options, str(port)]
    process = subprocess.Popen(command, env=os.environ | {"TCP_NODELAY": "1"})
    try:
        until(lambda: _answers(port), "the start of storescp")
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(10)


def _answers(port: int) -> bool:
    try:
        echo(Peer("storescp", "127.0.0.1", port, "ORTHANC", "SCANSEAL", timeout_s=5.0))
    except TryLater:
        return False
    return True


def test_a_pacs_that_is_stopped_in_the_middle_gets_the_rest_when_it_goes_on(desk: Desk, tmp_path: Path, port: int) -> None:
    paths = images(4, tmp_path / "images")
    with storescp(tmp_path / "pacs", port) as process:
        modality = desk.listen()
        desk.forward(port, timeout_s=1.0)
        modality.send_until_taken(*paths[:2])
        desk.until_sent(2)
        process.send_signal(signal.SIGSTOP)
        modality.send_until_taken(*paths[2:])
        until(lambda: desk.said, "the trouble")
        assert sum(row.forward == "waiting" for row in desk.rows()) == 2
        process.send_signal(signal.SIGCONT)
        desk.until_sent(4)
        kept = {digest(stripped(path.read_bytes())) for path in (tmp_path / "pacs").iterdir()}
        assert kept == {digest(data_set(path)) for path in paths}


def test_a_pacs_that_dies_in_the_middle_of_an_image_gets_it_when_it_is_back(desk: Desk, tmp_path: Path, port: int) -> None:
    small, large = image(0, tmp_path / "images"), image(1, tmp_path / "images", side=3000)
    modality = desk.listen()
    with storescp(tmp_path / "pacs", port) as process:
        desk.forward(port, timeout_s=20.0)
        modality.send_until_taken(small)
        desk.until_sent(1)
        process.send_signal(signal.SIGSTOP)
        modality.send_until_taken(large)
        until(lambda: desk.steps.count("before sending") == 2, "the second image")
        time.sleep(0.5)  # until the socket takes no more of it
        process.kill()
        until(lambda: desk.said, "the trouble")
        assert desk.said == ["pacs ended the association while an image was sent"]
    with storescp(tmp_path / "pacs2", port):
        desk.until_sent(2)
        (kept,) = (tmp_path / "pacs2").iterdir()
        assert digest(stripped(kept.read_bytes())) == digest(data_set(large))


def test_of_several_that_share_the_work_each_has_its_own_images(desk: Desk, tmp_path: Path, port: int) -> None:
    with pacs(port) as one:
        modality, paths = desk.listen(), images(7, tmp_path / "images")
        modality.send_until_taken(*paths)
        for which in range(2):
            desk.forward(port, share=(which, 2))
        desk.until_sent(7)
        assert_has(one, *paths)
        assert one.asked == 7


def test_what_is_no_dicom_file_is_kept_and_nothing_waits_for_it(desk: Desk, tmp_path: Path, port: int) -> None:
    for content in (b"a note that somebody left in the folder", b""):
        part = desk.spool.part()
        part.write_bytes(content)
        desk.spool.take(part, "ct", forward=True, seal=False)
    (path,) = images(1, tmp_path / "images")
    with pacs(port) as one:
        desk.listen().send_until_taken(path)
        desk.forward(port)
        desk.until_sent(1)
        assert_has(one, path)
    rows = desk.rows()
    assert [row.forward for row in rows] == ["unsendable", "unsendable", "sent"]
    assert desk.said == []
    desk.spool.book.note_sealed([Sealing(rows[2].number, "none")])
    desk.spool.book.finish(0)
    desk.spool.clean()
    assert [desk.spool.path(row).exists() for row in rows] == [True, True, False]
    assert desk.spool.book.counts().oldest_forward is None
