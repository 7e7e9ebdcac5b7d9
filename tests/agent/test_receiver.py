"""A receiver takes what a modality sends, whole and durable, tells everyone else the right thing, and goes on serving."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.agent import receiver
from ledger.agent.receiver import Peer, Receiver
from ledger.agent.spool import SpoolFull
from ledger.core.errors import TryLater
from tests.agent import hostile
from tests.agent.conftest import Desk
from tests.agent.hostile import Hostile, command, fragment, item, pdu, request
from tests.agent.modality import Modality, data_set, images, instance, stripped
from tests.journeys.agents import store, until

COMMAND, LAST = 1, 2
PIECE = b"\x08\x00\x05\x00CS\x02\x00AB" * 1000


@pytest.fixture
def modality(desk: Desk) -> Modality:
    return desk.listen(idle_s=2.0, limit=8)


def assert_serves(desk: Desk, modality: Modality, tmp_path: Path) -> None:
    """An honest storescu is served, and of others nothing is left."""
    before = len(desk.rows())
    (path,) = images(1, tmp_path / f"honest{before}")
    done = store(modality.port, path)
    assert done.returncode == 0, done.stderr
    rows = desk.rows()
    assert len(rows) == before + 1
    assert stripped(desk.spool.path(rows[-1]).read_bytes()) == data_set(path)
    until(lambda: not desk.incoming(), "an empty folder of what comes")


# ---- what is taken --------------------------------------------------------------------------------------------------


def test_what_was_received_is_in_the_spool_byte_for_byte_before_it_is_answered(desk, modality, tmp_path):
    paths = images(3, tmp_path / "images")
    modality.send(*paths)
    assert set(modality.told) == {instance(path) for path in paths}
    assert all(told == [0] for told in modality.told.values())
    assert [stripped(desk.spool.path(row).read_bytes()) for row in desk.rows()] == [data_set(path) for path in paths]
    assert desk.steps[:6] == ["received", "synced", "renamed", "in the folder", "noted", "answered"]


def test_c_echo_is_answered(modality):
    done = subprocess.run(
        ["echoscu", "-aet", "STORESCU", "-aec", "SCANSEAL", "127.0.0.1", str(modality.port)], capture_output=True, timeout=20
    )
    assert done.returncode == 0, done.stderr


# ---- who is not -----------------------------------------------------------------------------------------------------

NOT_RECOGNISED, CALLED_NOT_RECOGNISED, LIMIT_EXCEEDED = b"\0\1\1\3", b"\0\1\1\7", b"\0\2\3\2"


@pytest.mark.parametrize(
    ("calling", "called", "address", "told"),
    [
        (b"STORESCU", b"SCANSEAL", "127.0.0.1", None),
        (b"OTHER", b"SCANSEAL", "127.0.0.1", NOT_RECOGNISED),
        (b"STORESCU", b"SCANSEAL", "127.0.0.2", NOT_RECOGNISED),
        (b"STORESCU", b"ANOTHER", "127.0.0.1", CALLED_NOT_RECOGNISED),
        (b"storescu", b"SCANSEAL", "127.0.0.1", NOT_RECOGNISED),
    ],
)
def test_others_are_rejected_with_the_reason_of_the_standard(desk, modality, tmp_path, calling, called, address, told):
    one = Hostile(modality.port, address)
    one.send(request(calling, called))
    answer = one.pdu()
    assert (answer[0], answer[6:10] if told else None) == ((0x03, told) if told else (0x02, None))
    assert_serves(desk, modality, tmp_path)


def test_a_full_spool_refuses_associations_for_now_and_takes_them_again(desk, modality, tmp_path):
    desk.spool._min_free = 1 << 60
    one = Hostile(modality.port).send(request())
    assert one.pdu()[6:10] == LIMIT_EXCEEDED
    assert "spool full" in desk.refused
    desk.spool._min_free = 0
    assert_serves(desk, modality, tmp_path)


def test_a_spool_that_gets_full_answers_out_of_resources_and_keeps_nothing(desk, modality, tmp_path):
    one = Hostile(modality.port).associate()
    desk.spool._min_free = 1 << 60
    one.send(fragment(command(), COMMAND | LAST), fragment(PIECE, LAST))
    assert status(one) == 0xA700
    assert not desk.rows()
    assert not desk.incoming()
    desk.spool._min_free = 0
    one.send(fragment(command(), COMMAND | LAST), fragment(PIECE, LAST))
    assert status(one) == 0


@pytest.mark.parametrize("error", [TryLater("locked"), SpoolFull("full")], ids=["locked", "full"])
def test_a_book_that_cannot_be_written_is_out_of_resources_and_keeps_nothing(desk, modality, monkeypatch, error):
    def fails(*_: object, **__: object) -> bool:
        raise error

    monkeypatch.setattr(desk.spool.book, "add", fails)
    one = Hostile(modality.port).associate().send(fragment(command(), COMMAND | LAST), fragment(PIECE, LAST))
    assert status(one) == 0xA700
    assert not list(desk.spool.folder.glob("*.dcm"))
    assert not desk.incoming()


# ---- what is no image -----------------------------------------------------------------------------------------------


def status(one: Hostile) -> int:
    """Of the answer to a command."""
    answer = one.pdu()
    assert answer[0] == 0x04, answer
    at = answer.index(b"\0\0\0\x09\x02\0\0\0")
    return int.from_bytes(answer[at + 8 : at + 10], "little")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"data_set": 0x0101}, 0xC000),
        ({"sop_class": b"1.2.840.10008.5.1.4.1.1.4"}, 0x0122),
        ({"sop_class": b"../../etc/passwd"}, 0x0122),
        ({"instance": b"../../etc/passwd"}, 0x0117),
        ({"instance": b""}, 0x0117),
        ({"instance": b"1" * 65}, 0x0117),
        ({"field": 0x0020}, 0x0211),
        ({"field": 0x0130}, 0x0211),
    ],
)
def test_a_request_that_is_none_is_answered_and_keeps_nothing(desk, modality, tmp_path, given, told):
    one = Hostile(modality.port).associate().send(fragment(command(**given), COMMAND | LAST))
    if given.get("data_set") != 0x0101:
        one.send(fragment(PIECE, LAST))
    assert status(one) == told
    assert not desk.rows()
    assert_serves(desk, modality, tmp_path)


def test_an_empty_data_set_is_no_image(desk, modality, tmp_path):
    one = Hostile(modality.port).associate().send(fragment(command(), COMMAND | LAST), fragment(b"", LAST))
    assert status(one) == 0xC000
    assert_serves(desk, modality, tmp_path)


# ---- hostile peers --------------------------------------------------------------------------------------------------

BEGUN = (fragment(command(), COMMAND | LAST), fragment(PIECE, 0))
BEFORE_ASSOCIATION: dict[str, bytes] = {
    "garbage": b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    "zeros": bytes(100_000),
    "4 GiB declared": pdu(0x01, b"x" * 1000, 0xFFFFFFFF),
    "a data PDU first": fragment(PIECE, LAST),
    "a release first": pdu(0x05, bytes(4)),
    "an abort first": pdu(0x07, bytes(4)),
    "a request that is cut off": request()[:60],
    "a request of no items": pdu(0x01, struct_head := bytes(68)),
    "items that are longer than the request": pdu(0x01, struct_head + b"\x20\0\xff\xff"),
    "an item in itself for ever": pdu(0x01, struct_head + item(0x50, item(0x51, b"")) * 3000),
    "a megabyte of contexts": request(more=item(0x20, b"\1\0\0\0" + item(0x30, hostile.CT) + item(0x40, b"1")) * 20_000),
    "a UID that is text": request(contexts=(b"\xff\xfe<script>",)),
    "an AE title that is binary": request(calling=b"\0\1\2\xff\xfe"),
    "nothing": b"",
}
IN_ASSOCIATION: dict[str, tuple[bytes, ...]] = {
    "4 GiB declared": (pdu(0x04, PIECE, 0xFFFFFFFF),),
    "more than was agreed": (fragment(bytes(1 << 18), 0),),
    "another context": (fragment(command(), COMMAND | LAST, 99),),
    "an even context": (fragment(command(), COMMAND | LAST, 2),),
    "a data set first": (fragment(PIECE, LAST),),
    "a command after its data began": (*BEGUN, fragment(command(), COMMAND | LAST)),
    "a command without end": tuple(fragment(bytes(16_000), COMMAND) for _ in range(5)),
    "a command of garbage": (fragment(b"\xff" * 64, COMMAND | LAST),),
    "an element of 4 GiB in a command": (fragment(b"\0\0\0\0\xff\xff\xff\xff", COMMAND | LAST),),
    "a fragment longer than its PDU": (pdu(0x04, b"\xff\xff\xff\xff\1\3" + bytes(50)),),
    "a fragment of no length": (pdu(0x04, b"\0\0\0\0\1\3"),),
    "a PDU of no length": (pdu(0x04, b""),),
    "a PDU of no known type": (pdu(0x99, bytes(4)),),
    "a second request": (request(),),
    "silence": (),
    "silence in a data set": BEGUN,
    "a data set that is cut off": (BEGUN[0], BEGUN[1][:500]),
}


@pytest.mark.parametrize("name", BEFORE_ASSOCIATION)
def test_who_asks_for_no_association_is_cut_off(desk, modality, tmp_path, name):
    one = Hostile(modality.port).send(BEFORE_ASSOCIATION[name])
    assert_serves(desk, modality, tmp_path)
    assert one.is_cut_off()


@pytest.mark.parametrize("name", IN_ASSOCIATION)
def test_who_breaks_the_rules_of_an_association_is_cut_off_and_nothing_is_kept(desk, modality, tmp_path, name):
    one = Hostile(modality.port).associate().send(*IN_ASSOCIATION[name])
    assert_serves_in_time(desk, modality, tmp_path)
    assert one.is_cut_off()
    until(lambda: not desk.incoming(), "an empty folder of what comes", 5)


def assert_serves_in_time(desk: Desk, modality: Modality, tmp_path: Path) -> None:
    (path,) = images(1, tmp_path / "honest")
    assert store(modality.port, path).returncode == 0
    assert len(desk.rows()) == 1


@pytest.mark.parametrize("end", ["close", "reset", "abort", "release"])
def test_an_association_that_ends_in_a_data_set_leaves_nothing(desk, modality, tmp_path, end):
    one = Hostile(modality.port).associate().send(*BEGUN)
    until(desk.incoming, "a file that comes")
    ends: dict[str, Callable[[], object]] = {
        "close": one.close,
        "reset": one.reset,
        "abort": lambda: one.send(pdu(0x07, bytes(4))),
        "release": lambda: one.send(pdu(0x05, bytes(4))),
    }
    ends[end]()
    until(lambda: not desk.incoming(), "an empty folder of what comes", 5)
    assert not desk.rows()
    assert_serves(desk, modality, tmp_path)


def test_a_release_without_data_is_answered(desk, modality):
    one = Hostile(modality.port).associate().send(pdu(0x05, bytes(4)))
    assert one.kind() == 0x06
    assert one.is_cut_off()


@pytest.mark.parametrize("associates", [False, True])
def test_one_byte_at_a_time_is_cut_off(desk, modality, tmp_path, associates):
    stop = threading.Event()
    ones = [Hostile(modality.port) for _ in range(4)]
    for one in ones:
        if associates:
            one.associate()
        slow = fragment(command(), COMMAND | LAST) if associates else request()
        threading.Thread(target=one.drip, args=(slow, stop.is_set, 0.2), daemon=True).start()
    assert_serves(desk, modality, tmp_path)
    assert all(one.is_cut_off(6.0) for one in ones)
    stop.set()


def test_connections_that_say_nothing_keep_nobody_out(desk, modality, tmp_path):
    silent = [Hostile(modality.port) for _ in range(200)]
    assert_serves(desk, modality, tmp_path)
    assert "displaced before it associated" in desk.refused
    for one in silent:
        one.close()


def test_more_associations_than_the_limit_are_told_so_and_the_others_stay(desk, modality, tmp_path):
    open_ones = [Hostile(modality.port).associate() for _ in range(8)]
    one = Hostile(modality.port)
    assert one.pdu()[6:10] == LIMIT_EXCEEDED
    for other in open_ones:
        other.send(pdu(0x05, bytes(4)))
        assert other.kind() == 0x06
    until(lambda: not desk.receiver._open, "the end of the associations")
    assert_serves(desk, modality, tmp_path)


def test_who_was_told_that_it_may_send_is_not_displaced(desk, monkeypatch):
    associated = receiver._Conversation._associated

    def goes_on_late(conversation):
        """The machine does other work just after the peer was told."""
        told = associated(conversation)
        time.sleep(0.3)
        return told

    monkeypatch.setattr(receiver._Conversation, "_associated", goes_on_late)
    port = desk.listen(idle_s=20.0, limit=1).port
    held = Hostile(port).associate()
    assert Hostile(port).pdu()[6:10] == LIMIT_EXCEEDED
    assert held.send(pdu(0x05, bytes(4))).kind() == 0x06


def test_storescu_is_told_of_the_limit(desk, tmp_path):
    modality = desk.listen(idle_s=20.0, limit=1)
    held = Hostile(modality.port).associate()
    (path,) = images(1, tmp_path / "images")
    done = store(modality.port, path)
    assert done.returncode != 0
    assert "Local Limit Exceeded" in done.stderr
    held.close()


def test_a_data_set_without_end_stops_when_the_room_does(desk, modality, monkeypatch):
    monkeypatch.setattr("ledger.agent.receiver.ROOM_EVERY", 100_000)
    one = Hostile(modality.port).associate().send(BEGUN[0])
    desk.spool._min_free = 1 << 60
    one.send(*(fragment(bytes(60_000), 0) for _ in range(4)))
    until(lambda: not desk.incoming(), "the end of the file", 5)
    one.send(fragment(bytes(10), LAST))
    assert status(one) == 0xA700
    desk.spool._min_free = 0


def test_stopping_ends_the_silent_at_once_and_lets_an_image_be_finished(desk, modality):
    silent, busy = Hostile(modality.port).associate(), Hostile(modality.port).associate().send(*BEGUN)
    until(desk.incoming, "a file that comes")
    stopping = threading.Thread(target=desk.receiver.stop)
    began = time.monotonic()
    stopping.start()
    assert silent.is_cut_off(3.0)
    busy.send(fragment(PIECE, LAST))
    assert status(busy) == 0
    stopping.join(5)
    assert time.monotonic() - began < 4
    assert len(desk.rows()) == 1


def test_a_port_that_is_taken_says_so(desk, modality):
    from dataclasses import replace

    from ledger.core.errors import FixInput

    other = Receiver(replace(desk.receiver.listener, port=modality.port, allow=(Peer(),)), desk.spool, lambda *_: None)
    with pytest.raises(FixInput, match="cannot listen"):
        other.start()
