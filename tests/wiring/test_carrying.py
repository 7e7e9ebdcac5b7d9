"""The loop that anchors by itself, on real chains that fail it in every way: each record ends in the log once, and final."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ledger.chain import FeePolicy
from ledger.chain.devnet import account, make_block
from ledger.core.checkpoint import Checkpoint, sign
from ledger.core.errors import TryLater
from ledger.core.records import Role
from ledger.log.anchoring import AnchorRow
from ledger.log.schedule import DAY_S, ETHER, GWEI, Policy, day_start
from tests.chain.conftest import Chain
from tests.simulators.rpc import FaultyNode
from tests.wiring.station import AT_ONCE, LOG_KEY, ORIGIN, PUBLIC_KEY, Station, wait_for_workers, wait_until

MIDDAY = day_start(time.time()) + DAY_S // 2


class Clock:
    """Seconds since 1970, which a test sets."""

    def __init__(self, now: float = MIDDAY) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def words(carrier) -> list[str]:  # type: ignore[no-untyped-def]
    return [alarm.word for alarm in carrier.status().alarms]


def signed(station: Station, size: int) -> str:
    """The checkpoint that this log signed, or would have signed, at a size."""
    return sign(Checkpoint(ORIGIN, size, station.log.root(size)), PUBLIC_KEY, LOG_KEY.sign)


@pytest.mark.parametrize("own_chain", ["anvil-osaka", "anvil-paris", "ganache"], indirect=True)
def test_what_is_sealed_while_it_runs_is_final_in_the_end(station: Station) -> None:
    with station.running() as carrier:
        for count in (1, 3, 2):
            station.seal(count)
            wait_until(station.is_final)
        wait_until(lambda: not station.payments.open())
        status = carrier.status()
    station.assert_whole()
    assert (status.queued, status.log_size, status.anchored_size, status.final_size) == (0, 6, 6, 6)
    assert status.alarms == ()
    assert status.last_error is None
    assert len(station.believed) == 3
    fees = sum(row.fee_wei or 0 for row in station.anchors.rows())
    assert station.payments.spent(0) == fees > 0


def test_the_interval_is_kept_and_a_full_batch_does_not_wait_for_it(station: Station) -> None:
    station.now = clock = Clock()
    station.seal(1)  # was there before the loop began, and nothing was ever anchored: it is due
    with station.running(Policy(interval_s=60, batch=5)) as carrier:
        wait_until(station.is_final)
        clock.now += 1
        station.seal(2)
        wait_until(lambda: carrier.status().forecast.next_anchor_at == clock.now + 60)
        assert station.anchors.included_size() == 1
        station.seal(3)
        wait_until(station.is_final)
        station.seal(1)
        wait_until(lambda: carrier.status().doing == "1 records wait for the next anchor")
        clock.now += 60
        wait_until(station.is_final)
    assert station.on_chain() == [(0, 1), (1, 6), (6, 7)]
    station.assert_whole()


def test_over_the_ceiling_it_waits_says_so_and_anchors_when_the_price_falls(station: Station) -> None:
    station.now = clock = Clock()
    station.node.call("anvil_setNextBlockBaseFeePerGas", hex(500 * GWEI))
    make_block(station.node)
    station.seal(3)
    policy = Policy(interval_s=0, ceiling_wei=200 * GWEI)
    with FaultyNode(station.url) as node, station.running(policy, node.url) as carrier:
        wait_until(lambda: "the ceiling is 200" in carrier.status().doing)
        time.sleep(0.1)
        asked = node.http_requests
        time.sleep(0.3)
        assert node.http_requests == asked  # the price is asked for again later
        assert carrier.status().log_size == 3
        assert words(carrier) == []
        clock.now += 660
        wait_until(lambda: words(carrier) == ["price over the ceiling"])
        assert "for 11 min" in str(carrier.status().alarms[0])
        assert station.on_chain() == []
        station.node.call("anvil_setNextBlockBaseFeePerGas", hex(GWEI))
        make_block(station.node)
        clock.now += 60
        wait_until(station.is_final)
        wait_until(lambda: words(carrier) == [])
    station.assert_whole()


def test_a_stuck_transaction_is_replaced_by_runs_after_each_other_and_paid_for_once(station: Station) -> None:
    station.fees = FeePolicy(resend_after_s=0.3, give_up_after_s=0.7, poll_s=0.05)
    station.node.call("evm_setAutomine", False)
    station.seal(2)
    with station.running(let_time_pass=None) as carrier:
        wait_until(lambda: "no block took" in (carrier.status().last_error or ""))
        first = carrier.status().spent_today_wei
        assert first > 0
        station.seal(2)
    wait_for_workers()
    nonces = {sent.nonce for sent in station.payments.open()}
    with station.running(let_time_pass=None) as carrier:
        wait_until(lambda: any(row.new_size == 4 for row in station.anchors.unsettled()))
        wait_until(lambda: carrier.status().spent_today_wei > first)
        assert {sent.nonce for sent in station.payments.open()} == nonces
        assert len(nonces) == 1
        station.node.call("evm_setAutomine", True)
        station.node.call("evm_mine")
        wait_until(lambda: station.anchors.included_size() == 4)
    with station.running():
        wait_until(station.is_final)
        wait_until(lambda: not station.payments.open())
    station.assert_whole()
    assert len(station.on_chain()) == 1
    assert station.payments.spent(0) == station.anchors.rows()[0].fee_wei


@pytest.mark.parametrize("own_chain", ["anvil-osaka", "ganache"], indirect=True)
def test_another_program_with_the_same_account_disturbs_nothing(station: Station) -> None:
    stop = threading.Event()

    def enrol() -> None:
        ledger = station.ledger(fees=station.fees)
        while not stop.is_set():
            word = os.urandom(32)
            with suppress(TryLater):  # it is disturbed itself
                ledger.enrol(word, word, word, Role.ACQUIRE)

    other = threading.Thread(target=enrol)
    other.start()
    try:
        with station.running():
            for _ in range(6):
                station.seal(2)
                time.sleep(0.2)
            wait_until(station.is_final)
    finally:
        stop.set()
        other.join(20)
    station.assert_whole()


def test_records_are_sequenced_while_the_node_hangs_and_anchored_when_it_answers_again(
    station: Station, own_chain: Chain
) -> None:
    status = own_chain.devnet.status()
    assert status is not None
    station.seal(1)
    with station.running() as carrier:
        wait_until(station.is_final)
        os.killpg(status.pid, signal.SIGSTOP)
        try:
            for count in range(2, 6):
                station.seal(1)
                wait_until(lambda count=count: station.log.head().size == count, 1.5)
            wait_until(lambda: "does not answer" in (carrier.status().last_error or ""))
            station.seal(1)
            wait_until(lambda: station.log.head().size == 6, 1.5)
        finally:
            os.killpg(status.pid, signal.SIGCONT)
        wait_until(station.is_final)
    station.assert_whole()


def test_a_loop_that_hangs_in_a_question_stops_at_once_and_the_next_run_goes_on(station: Station, own_chain: Chain) -> None:
    status = own_chain.devnet.status()
    assert status is not None
    station.seal(3)
    station.timeout_s = 8
    os.killpg(status.pid, signal.SIGSTOP)
    try:
        with station.running() as carrier:
            wait_until(lambda: carrier.status().log_size == 3)
            before = time.monotonic()
        assert time.monotonic() - before < 4  # a second, and not the 8 that the node has to answer
    finally:
        os.killpg(status.pid, signal.SIGCONT)
    with station.running():
        wait_until(station.is_final)
    station.assert_whole()


@pytest.mark.parametrize(
    "fault", ["wrong chain id", "false root", "hidden events", "false receipt", "stale head", "drop", "http 500"]
)
def test_what_a_node_lies_is_never_a_state_and_the_loop_outlives_it(station: Station, fault: str) -> None:
    station.seal(2)
    with FaultyNode(station.url) as node, station.running(AT_ONCE, node.url) as carrier:
        wait_until(station.is_final)
        node.fault = fault
        station.seal(2)
        wait_until(lambda: station.log.head().size == 4)
        if fault != "stale head":
            wait_until(lambda: carrier.status().last_error is not None)
        assert station.anchors.final_size() == 2
        node.fault = None
        wait_until(station.is_final)
        wait_until(lambda: carrier.status().last_error is None)
    station.assert_whole()


def test_the_chain_may_be_down_at_every_step(station: Station) -> None:
    """The node fails at one more request each time, and answers again after that."""
    requests = 0
    with FaultyNode(station.url) as node:
        asked = node._serve
        failing_at = [-1]

        def serve(handler) -> None:  # type: ignore[no-untyped-def]
            nonlocal requests
            requests += 1
            node.fault = "drop" if requests == failing_at[0] else None
            asked(handler)

        node._serve = serve  # type: ignore[method-assign]
        with station.running(AT_ONCE, node.url):
            for step in range(1, 31):
                failing_at[0] = requests + step
                station.seal(1)
                wait_until(station.is_final)
    station.assert_whole()
    assert station.log.head().size == 30


@pytest.mark.parametrize("depth", [1, 5])
def test_what_a_reorg_takes_is_anchored_again_by_itself_and_is_never_final_before(station: Station, depth: int) -> None:
    for _ in range(6):
        make_block(station.node)
    with FaultyNode(station.url) as node:
        node.has_tags = False  # final is what 24 blocks stand on: anvil would call all of these final but the newest
        with station.running(AT_ONCE, node.url, let_time_pass=None) as carrier:
            for number in range(1, depth + 1):
                station.seal(1)
                wait_until(lambda number=number: station.anchors.included_size() == number)
            taken = station.on_chain()
            assert [row.state for row in station.anchors.rows()] == ["included"] * depth
            station.node.call("anvil_reorg", depth, [])
            assert station.on_chain() == []
            wait_until(lambda: station.on_chain() != [])
            assert carrier.status().final_size == 0
            station.seal(1)
            wait_until(lambda: station.anchors.included_size() == depth + 1)
        with station.running(AT_ONCE, node.url):
            wait_until(station.is_final)
    station.assert_whole()
    assert len(taken) == depth


def test_a_chain_that_was_set_back_behind_what_was_final_is_no_reason_to_anchor_again(station: Station) -> None:
    snapshot = station.node.call("evm_snapshot")
    station.seal(2)
    with station.running():
        wait_until(station.is_final)
    wait_for_workers()
    station.node.call("evm_revert", snapshot)
    station.seal(1)
    with station.running() as carrier:
        wait_until(lambda: "2 were final" in (carrier.status().last_error or ""))
    assert station.on_chain() == []
    assert carrier.status().final_size == 2


def test_an_anchor_that_comes_back_after_a_reorg_is_taken_as_it_is(station: Station) -> None:
    """Other nodes return a re-orged transaction to the mempool: here it is sent again by hand."""
    station.seal(2)
    with station.running(let_time_pass=None):
        wait_until(lambda: [sent.fee_wei is None for sent in station.payments.open()] == [False])
    wait_for_workers()
    (sent,) = station.payments.open()
    raw = station.node.call("eth_getRawTransactionByHash", "0x" + sent.transaction.hex())
    station.node.call("anvil_reorg", 1, [])
    with station.running(Policy(ceiling_wei=1), let_time_pass=None):  # sees it gone, and may not send
        wait_until(lambda: station.anchors.included_size() == 0)
    wait_for_workers()
    assert station.payments.spent(0) == sent.most_wei
    station.seal(3)
    station.node.call("eth_sendRawTransaction", raw)
    with station.running():
        wait_until(station.is_final)
        wait_until(lambda: not station.payments.open())
    station.assert_whole()
    assert station.on_chain() == [(0, 2), (2, 5)]
    assert station.payments.spent(0) == sum(row.fee_wei or 0 for row in station.anchors.rows())


def test_a_used_up_budget_waits_for_the_next_utc_day(station: Station) -> None:
    station.now = clock = Clock()
    with station.running(Policy(interval_s=0, budget_wei=ETHER)):
        station.seal(1)
        wait_until(station.is_final)
        wait_until(lambda: not station.payments.open())
    wait_for_workers()
    spent = station.payments.spent(day_start(clock.now))
    price = int(station.node.call("eth_gasPrice"), 16)
    budget = spent + price * 300_000
    with station.running(Policy(interval_s=0, budget_wei=budget)) as carrier:
        while "budget used up" not in words(carrier):
            station.seal(1)
            wait_until(lambda: station.is_final() or "budget used up" in words(carrier))
        status = carrier.status()
        assert status.anchored_size < status.log_size
        assert spent < status.spent_today_wei <= budget
        count = len(station.on_chain())
        clock.now = day_start(clock.now) + DAY_S - 1
        time.sleep(0.3)
        assert len(station.on_chain()) == count
        clock.now += 2
        wait_until(station.is_final)
        wait_until(lambda: words(carrier) == [])
        assert carrier.status().spent_today_wei < spent * 2
    station.assert_whole()


def test_replacing_a_stuck_transaction_never_goes_beyond_the_budget(station: Station) -> None:
    station.now = Clock()
    station.fees = FeePolicy(resend_after_s=0.1, give_up_after_s=2, poll_s=0.05)
    station.node.call("evm_setAutomine", False)
    price = int(station.node.call("eth_gasPrice"), 16)
    budget = price * 400_000
    station.seal(1)
    with station.running(Policy(interval_s=0, budget_wei=budget), let_time_pass=None) as carrier:
        wait_until(lambda: len(station.payments.open()) > 2)
        wait_until(lambda: carrier.status().last_error is not None)
        assert carrier.status().spent_today_wei <= budget
        assert station.payments.spent(0) > budget // 2
        station.node.call("evm_setAutomine", True)
        station.node.call("evm_mine")
        wait_until(lambda: station.anchors.included_size() == 1)
    with station.running():
        wait_until(station.is_final)
    station.assert_whole()


def test_a_node_that_makes_up_what_a_transaction_cost_is_not_believed(station: Station) -> None:
    class Exaggerating(FaultyNode):
        exaggerates = True

        def _answers(self, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
            answers = super()._answers(calls)
            for answer in answers:
                receipt = answer.get("result")
                if self.exaggerates and isinstance(receipt, dict) and "effectiveGasPrice" in receipt:
                    receipt["effectiveGasPrice"] = hex(10**15)
            return answers

    station.seal(1)
    with Exaggerating(station.url) as node, station.running(AT_ONCE, node.url) as carrier:
        wait_until(lambda: "cost more than it can have cost" in (carrier.status().last_error or ""))
        (sent,) = station.payments.open()
        assert station.payments.spent(0) == sent.most_wei
        node.exaggerates = False
        wait_until(lambda: not station.payments.open())
        wait_until(station.is_final)
    station.assert_whole()


def test_of_two_loops_one_anchors_both_sequence_and_the_second_takes_over(station: Station) -> None:
    with station.running() as second_to_be, station.running() as other:
        for _ in range(10):
            station.seal(2)
            time.sleep(0.05)
        wait_until(station.is_final)
        doing = [carrier.status().doing for carrier in (second_to_be, other)]
        assert doing.count("another process anchors for this site") == 1
    with station.running():
        station.seal(1)
        wait_until(station.is_final)
    station.assert_whole()


def test_two_loops_without_a_common_lock_never_fork_the_log(station: Station, tmp_path: Path) -> None:
    """As on two machines with one PostgreSQL."""
    carrier, stop = station.carrier(), threading.Event()
    carrier._lock = tmp_path / "another.lock"
    thread = threading.Thread(target=carrier.run, args=(stop,))
    thread.start()
    try:
        with station.running():
            for _ in range(10):
                station.seal(2)
                time.sleep(0.05)
            wait_until(station.is_final)
    finally:
        stop.set()
        thread.join(10)
    wait_for_workers()
    with station.running():
        wait_until(station.is_final)
        wait_until(lambda: not any(row.state == "sequenced" for row in station.anchors.rows()))
    station.assert_whole()


def test_a_revoked_key_is_told_and_its_records_are_anchored_all_the_same(station: Station) -> None:
    ledger = station.ledger()
    ledger.enrol(station.signer.key, os.urandom(32), os.urandom(32), Role.ACQUIRE)
    ledger.revoke(station.signer.key, int(time.time()) - 100)
    station.node.call("anvil_setNextBlockBaseFeePerGas", hex(500 * GWEI))
    make_block(station.node)
    station.seal(1)
    with station.running(Policy(interval_s=0), settle_s=0.05) as carrier:
        clock = Clock(time.time())
        station.now = clock
        wait_until(lambda: "the ceiling is" in carrier.status().doing)
        clock.now += 20
        wait_until(lambda: "key revoked" in words(carrier))
        station.node.call("anvil_setNextBlockBaseFeePerGas", hex(GWEI))
        make_block(station.node)
        clock.now += 20
        wait_until(station.is_final)
    station.assert_whole()


def test_an_old_copy_of_the_store_is_told_and_never_forks_the_log(station: Station, tmp_path: Path) -> None:
    station.seal(2)
    with station.running():
        wait_until(station.is_final)
    wait_for_workers()
    (tmp_path / "old").mkdir()
    with sqlite3.connect(tmp_path / "store.sqlite") as source, sqlite3.connect(tmp_path / "old/store.sqlite") as copy:
        source.backup(copy)
    station.seal(3)
    with station.running():
        wait_until(station.is_final)
    wait_for_workers()
    old = Station(tmp_path / "old", station.url, station.trust)
    old.seal(1)
    with old.running(look_s=0.1) as carrier:
        wait_until(lambda: words(carrier) == ["old copy restored"])
        size = old.log.head().size
        old.seal(4)  # as many as make its log longer than the chain's
        time.sleep(0.3)
        assert old.log.head().size == size
        assert carrier.status().queued + size == 7
    wait_for_workers()
    # It is found as well where it went on while the chain was down, and where it was just about to anchor that.
    old.carrier()._sequencing.sequence(lambda _: None)
    assert old.log.head().size > 5
    with old.running() as carrier:
        wait_until(lambda: words(carrier) == ["old copy restored"])
        assert "another history" in str(carrier.status().alarms[0])
    wait_for_workers()
    old.anchors.put(AnchorRow(5, 2, signed(old, 5), ()))
    with old.running() as carrier:
        wait_until(lambda: words(carrier) == ["old copy restored"])
        assert "another history" in str(carrier.status().alarms[0])
        assert carrier.status().final_size == 2
    wait_for_workers()
    old.close()
    assert station.on_chain() == [(0, 2), (2, 5)]
    station.assert_whole()


def test_an_account_without_coins_is_an_alarm_and_anchors_once_it_has_some(station: Station) -> None:
    address = account().address
    balance = station.node.call("eth_getBalance", address, "latest")
    station.node.call("anvil_setBalance", address, "0x0")
    make_block(station.node)  # anvil proves a changed state from the next block on
    station.seal(1)
    with station.running() as carrier:
        wait_until(lambda: {"not permitted", "balance low"} <= set(words(carrier)))
        station.node.call("anvil_setBalance", address, balance)
        make_block(station.node)
        wait_until(station.is_final)
        wait_until(lambda: words(carrier) == [])
    station.assert_whole()


def test_an_idle_loop_asks_the_chain_a_few_questions_a_minute(station: Station) -> None:
    station.seal(1)
    with FaultyNode(station.url) as node, station.running(AT_ONCE, node.url):
        wait_until(station.is_final)
        wait_until(lambda: not station.payments.open())
        time.sleep(0.3)
        before = node.http_requests
        time.sleep(1)
        assert node.http_requests == before


def test_killed_at_every_write_and_every_sending_it_loses_and_doubles_nothing(station: Station, tmp_path: Path) -> None:
    """Each process seals two records, dies at its numbered point, and the next one goes on: until one gets through."""
    (tmp_path / "trust.json").write_text(station.trust.model_dump_json())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    deaths = 0
    while True:
        command = [sys.executable, "-m", "tests.wiring.station", str(tmp_path), station.url, "2", str(deaths)]
        code = subprocess.run(command, env=environment, check=False, timeout=60).returncode
        assert code in (0, -9)
        if code == 0:
            break
        deaths += 1
        paid = station.payments.spent(0)
        assert paid >= sum(row.fee_wei or 0 for row in station.anchors.rows())
    assert deaths >= 30, "the points did nothing"
    with station.running():
        wait_until(station.is_final)
        wait_until(lambda: not any(row.state == "sequenced" for row in station.anchors.rows()))
        wait_until(lambda: not station.payments.open())
    station.assert_whole()
    assert station.payments.spent(0) >= sum(row.fee_wei or 0 for row in station.anchors.rows())
