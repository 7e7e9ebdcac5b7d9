"""The loop of a site at a node: it outlives what fails, hands nothing in to a log that lies, and says what needs somebody."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ledger.core.errors import LedgerUnavailable, TryLater
from ledger.log.following import Ledger
from ledger.log.schedule import Policy
from ledger.store.payments import PaymentStore
from ledger.wiring.handing import UNREACHED_S, HandingIn
from ledger.wiring.standing import Standing
from tests.node.ends import Node, Site, running
from tests.web.nodes import Agent, wait_until


def loop(site: Site, folder: Path, leave=lambda: False) -> HandingIn:  # type: ignore[no-untyped-def]
    payments = PaymentStore(site.store, lambda: site.now)
    standing = Standing(site.log, site.journal, site.anchors, payments, Policy(), lambda: site.now)
    following, lock = site.following, folder / "anchor.lock"
    return HandingIn(following, standing, lock, leave, "the node", clock=lambda: site.now, look_s=0.1)


def words(handing: HandingIn) -> list[str]:
    return [alarm.word for alarm in handing.status().alarms]


def test_it_hands_in_by_itself_until_everything_is_final(site: Site, node: Node, tmp_path: Path) -> None:
    handing, stop = loop(site, tmp_path), threading.Event()
    thread = threading.Thread(target=handing.run, args=(stop,))
    thread.start()
    site.seal(3)
    handing.wake()
    wait_until(lambda: node.desk.log.head().size == 3)
    node.anchor(3)
    wait_until(lambda: site.states() == {"queued": 0, "logged": 3, "final": 3})
    site.seal(2)
    handing.wake()
    wait_until(lambda: site.states()["logged"] == 5)
    status = handing.status()
    assert (status.queued, status.log_size, status.final_size, status.last_error, status.node) == (0, 5, 3, None, "the node")
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_two_loops_of_one_site_take_turns(site: Site, node: Node, tmp_path: Path) -> None:
    first, second, stop, later = loop(site, tmp_path), loop(site, tmp_path), threading.Event(), threading.Event()
    threads = [threading.Thread(target=one.run, args=(end,)) for one, end in ((first, stop), (second, later))]
    threads[0].start()
    wait_until(lambda: node.asked)
    threads[1].start()
    wait_until(lambda: second.status().doing == "another process hands in for this site")
    stop.set()
    threads[0].join(10)
    node.asked.clear()
    wait_until(lambda: node.asked)
    later.set()
    threads[1].join(10)


def test_records_are_handed_in_while_the_chain_cannot_be_asked(site: Site, node: Node, tmp_path: Path) -> None:
    def is_on_chain(_: object) -> bool:
        raise LedgerUnavailable("no chain")

    known = node.ledger()
    site.following._ledger = Ledger(known.anchor_log, known.device_registry, known.log_id, is_on_chain)
    handing = loop(site, tmp_path)
    site.seal(1)
    handing.turn()
    wait_until(lambda: node.desk.log.head().size == 1)
    node.anchor(1)
    site.seal(1)
    with pytest.raises(LedgerUnavailable):
        handing.turn()
    wait_until(lambda: node.desk.log.head().size == 2)
    with pytest.raises(LedgerUnavailable):
        handing.turn()
    assert site.states() == {"queued": 0, "logged": 2, "final": 0}


def test_to_a_log_with_another_history_nothing_is_handed_in_and_somebody_is_called(
    site: Site, node: Node, tmp_path: Path
) -> None:
    site.seal(2)
    handing = loop(site, tmp_path)
    handing.turn()
    wait_until(lambda: node.desk.log.head().size == 2)
    handing.turn()
    note = node.checkpoint(1)
    node.lies["checkpoint"] = lambda body: note.encode()
    site.seal(1)
    node.asked.clear()
    assert handing._tried() > 0
    assert "POST records" not in node.asked
    assert words(handing) == ["log disagrees"]
    node.lies.clear()
    handing.turn()
    assert words(handing) == []


def test_a_node_that_is_out_of_reach_for_long_is_an_alarm(site: Site, node: Node, tmp_path: Path) -> None:
    handing = loop(site, tmp_path)
    node.lies[""] = lambda body: (500, b"")
    handing._tried()
    assert words(handing) == []
    assert "says 500" in (handing.status().last_error or "")
    site.now += UNREACHED_S
    assert words(handing) == ["node out of reach"]
    node.lies.clear()
    handing._tried()
    assert words(handing) == []
    assert handing.status().last_error is None


def test_a_node_that_takes_records_and_keeps_them_out_of_the_log_is_an_alarm(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    with running(tmp_path / "node", carries=False) as node:
        site = Site(tmp_path, node, Agent())
        site.now = 1_800_000_000.0
        handing = loop(site, tmp_path)
        site.seal(1)
        handing.turn()
        assert words(handing) == []
        site.now += UNREACHED_S
        handing.turn()
        assert words(handing) == ["records left out"]
        site.store.close()


def test_a_key_that_the_node_holds_is_an_alarm_and_no_other(site: Site, node: Node, tmp_path: Path) -> None:
    twin = Agent(signer=site.agent.signer)
    node.desk.node.submit("Site C", twin.sign(1), [site.agent.certificate])
    handing = loop(site, tmp_path)
    site.seal(1)
    handing.turn()
    assert words(handing) == ["key held"]
    site.now += UNREACHED_S
    handing.turn()
    assert words(handing) == ["key held"], "what waits for its operator is not left out"


def test_what_cannot_be_left_keeps_nothing_from_being_handed_in(site: Site, node: Node, tmp_path: Path) -> None:
    def leave() -> bool:
        raise TryLater("later")

    handing = loop(site, tmp_path, leave)
    site.seal(1)
    with pytest.raises(TryLater, match="later"):
        handing.turn()
    wait_until(lambda: node.desk.log.head().size == 1)
