"""Stuck, replaced, overtaken and unaffordable transactions, on chains with and without a base fee."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ledger.chain import Endpoint, FeePolicy, Ledger, Nodes, Sender, deploy
from ledger.chain.devnet import MNEMONIC, Devnet, _free_port, _places, account, find_binary, give_coins
from ledger.core.errors import FixInput, LedgerUnavailable, ScanSealError, TryLater
from ledger.core.records import Role
from ledger.keys.signers import new_account
from tests.chain.conftest import Chain, fresh

GWEI = 10**9
QUICK = FeePolicy(resend_after_s=0.4, give_up_after_s=20, poll_s=0.05)


class Later:
    """Runs something in a thread and keeps its outcome."""

    def __init__(self, work) -> None:  # type: ignore[no-untyped-def]
        self._pool = ThreadPoolExecutor(1)
        self._future = self._pool.submit(work)

    def outcome(self):  # type: ignore[no-untyped-def]
        try:
            return self._future.result(30)
        finally:
            self._pool.shutdown()


def pending(endpoint: Endpoint) -> list[dict[str, str]]:
    content = endpoint.call("txpool_content")
    return [one for part in ("pending", "queued") for by_nonce in content[part].values() for one in by_nonce.values()]


def wait_until(condition) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_stuck_anchor_is_replaced_with_a_higher_fee_and_lands_once(own_anvil: Chain) -> None:
    endpoint = Endpoint(own_anvil.url)
    ledger = own_anvil.ledger(fees=QUICK)
    log = ledger.open_log(fresh())
    endpoint.call("evm_setAutomine", False)
    working = Later(lambda: ledger.anchor(log, 0, 2, b"\2" * 32, []))
    wait_until(lambda: pending(endpoint))
    first = int(pending(endpoint)[0]["maxFeePerGas"], 16)
    wait_until(lambda: int(pending(endpoint)[0]["maxFeePerGas"], 16) >= first * 3 // 2)
    assert len(pending(endpoint)) == 1
    endpoint.call("evm_mine")
    receipt = working.outcome()
    assert ledger.anchored_size(log) == 2
    assert receipt.transaction


def test_an_older_transaction_that_blocks_the_account_is_pushed_aside(own_anvil: Chain) -> None:
    """Its place is taken by ours; the copy of ours behind it is refused by the contract and does no harm."""
    endpoint = Endpoint(own_anvil.url)
    ledger = own_anvil.ledger(fees=QUICK)
    log = ledger.open_log(fresh())
    endpoint.call("evm_setAutomine", False)
    nonce = int(endpoint.call("eth_getTransactionCount", account().address, "latest"), 16)
    old = {"chainId": 31337, "nonce": nonce, "gas": 21_000, "to": "0x" + "55" * 20, "value": 1, "gasPrice": 8 * GWEI}
    endpoint.call("eth_sendRawTransaction", "0x" + bytes(account().sign_transaction(old).raw_transaction).hex())
    working = Later(lambda: ledger.anchor(log, 0, 2, b"\2" * 32, []))
    ours = "0x" + own_anvil.deployed.anchor_log.address.hex()
    wait_until(lambda: [one["to"] for one in pending(endpoint)] == [ours, ours])
    endpoint.call("evm_mine")
    receipt = working.outcome()
    assert ledger.anchored_size(log) == 2
    assert int(endpoint.call("eth_getTransactionByHash", "0x" + receipt.transaction.hex())["nonce"], 16) == nonce


def test_two_programs_with_one_account_do_not_lose_each_others_transactions(anvil: Chain) -> None:
    keys = [fresh() for _ in range(12)]
    barrier = threading.Barrier(2)

    def enrol(half: list[bytes]) -> None:
        ledger = anvil.ledger(fees=QUICK)
        barrier.wait()
        for key in half:
            ledger.enrol(key, fresh(), fresh(), Role.ACQUIRE)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(enrol, (keys[:6], keys[6:])))
    known = anvil.ledger().latest(keys).keys
    assert all(any(state.certificate) for state in known.values())


def test_two_programs_that_anchor_one_log_never_fork_it(anvil: Chain) -> None:
    log = anvil.ledger().open_log(fresh())

    def anchor(root: bytes) -> ScanSealError | None:
        try:
            anvil.ledger(fees=QUICK).anchor(log, 0, 3, root, [])
        except ScanSealError as error:
            return error
        return None

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(anchor, (b"\1" * 32, b"\2" * 32)))
    assert sum(outcome is None for outcome in outcomes) == 1
    assert all(outcome is None or isinstance(outcome, TryLater) for outcome in outcomes)
    assert anvil.ledger().anchored_size(log) == 3


def test_a_fee_over_the_ceiling_is_not_paid(anvil: Chain) -> None:
    ledger = anvil.ledger(fees=FeePolicy(ceiling_wei=1))
    with pytest.raises(LedgerUnavailable, match="the ceiling is 1e-09"):
        ledger.open_log(fresh())


def test_bumping_stops_at_the_ceiling(own_anvil: Chain) -> None:
    endpoint = Endpoint(own_anvil.url)
    fees = FeePolicy(ceiling_wei=3 * GWEI, resend_after_s=0.1, give_up_after_s=2, poll_s=0.05)
    ledger = own_anvil.ledger(fees=fees)
    log = fresh()
    endpoint.call("evm_setAutomine", False)
    with pytest.raises(LedgerUnavailable, match=r"no block took transaction 0x[0-9a-f]{64} within 2 s"):
        ledger.open_log(log)
    (last,) = pending(endpoint)
    assert 2 * GWEI < int(last["maxFeePerGas"], 16) <= 3 * GWEI
    endpoint.call("evm_mine")
    assert any(ledger.head(ledger.open_log(log)).owner)  # the same call again: it came through meanwhile


class Remembered:
    """An outbox in memory."""

    def __init__(self) -> None:
        self.noted: dict[bytes, tuple[int, int]] = {}

    def note(self, transaction: bytes, nonce: int, most_wei: int) -> None:
        self.noted[transaction] = (nonce, most_wei)

    def open_nonces(self) -> set[int]:
        return {nonce for nonce, _ in self.noted.values()}


def test_no_transaction_can_cost_more_than_it_may_however_often_it_is_replaced(own_anvil: Chain) -> None:
    endpoint = Endpoint(own_anvil.url)
    outbox = Remembered()
    fees = FeePolicy(resend_after_s=0.1, give_up_after_s=2, poll_s=0.05)
    ledger = own_anvil.ledger(fees=fees, outbox=outbox)
    log = ledger.open_log(fresh())
    outbox.noted.clear()
    endpoint.call("evm_setAutomine", False)
    most = 500_000 * GWEI
    with pytest.raises(LedgerUnavailable, match="no block took"):
        ledger.anchor(log, 0, 2, b"\2" * 32, [], most_wei=most)
    assert len(outbox.noted) > 2
    assert max(cost for _, cost in outbox.noted.values()) <= most
    costs = [int(one["gas"], 16) * int(one["maxFeePerGas"], 16) for one in pending(endpoint)]
    assert max(costs) <= most
    with pytest.raises(LedgerUnavailable, match="left of the budget"):
        ledger.anchor(log, 0, 2, b"\2" * 32, [], most_wei=most // 100)


def test_what_is_sent_was_noted_before_and_a_later_run_takes_the_place_of_what_is_stuck(own_anvil: Chain) -> None:
    endpoint = Endpoint(own_anvil.url)
    outbox = Remembered()
    fees = FeePolicy(resend_after_s=5, give_up_after_s=0.5, poll_s=0.05)
    log = own_anvil.ledger().open_log(fresh())
    endpoint.call("evm_setAutomine", False)
    for size in (2, 3):
        with pytest.raises(LedgerUnavailable, match="no block took"):
            own_anvil.ledger(fees=fees, outbox=outbox).anchor(log, 0, size, bytes([size]) * 32, [])
    (last,) = pending(endpoint)
    assert bytes.fromhex(last["hash"][2:]) in outbox.noted
    assert outbox.open_nonces() == {int(last["nonce"], 16)}
    endpoint.call("evm_mine")
    ledger = own_anvil.ledger()
    assert ledger.anchored_size(log) == 3
    next_nonce, paid = ledger.payments(list(outbox.noted))
    assert [payment is not None for payment in paid] == [one.hex() == last["hash"][2:] for one in outbox.noted]
    assert next_nonce <= int(last["nonce"], 16)  # its block is not final yet


def test_a_sender_that_is_stopped_sends_and_waits_no_more(own_anvil: Chain) -> None:
    endpoint, stop, outbox = Endpoint(own_anvil.url), threading.Event(), Remembered()
    ledger = own_anvil.ledger(fees=FeePolicy(), outbox=outbox, stop=stop)
    log = ledger.open_log(fresh())
    endpoint.call("evm_setAutomine", False)
    working = Later(lambda: ledger.anchor(log, 0, 2, b"\2" * 32, []))
    wait_until(lambda: pending(endpoint))
    stop.set()
    with pytest.raises(LedgerUnavailable, match="stopped"):
        working.outcome()
    count = len(outbox.noted)
    with pytest.raises(LedgerUnavailable, match="stopped"):
        ledger.anchor(log, 0, 2, b"\2" * 32, [])
    assert len(outbox.noted) == count


def test_the_market_is_what_the_next_block_takes(chain: Chain) -> None:
    endpoint = Endpoint(chain.url)
    market = chain.ledger().market()
    assert market.balance_wei == int(endpoint.call("eth_getBalance", account().address, "latest"), 16)
    assert 0 < market.price_wei <= 10 * GWEI


def test_an_account_without_coins_is_told_so(anvil: Chain) -> None:
    poor = new_account()
    ledger = Ledger.connect([Endpoint(anvil.url)], anvil.trust, poor)
    with pytest.raises(FixInput, match=f"{poor.address} cannot pay"):
        ledger.open_log(fresh())
    give_coins(Endpoint(anvil.url), bytes.fromhex(poor.address[2:]), 10**18)
    assert ledger.open_log(fresh())


def test_more_leaves_than_a_transaction_may_carry_are_refused_with_the_limit(anvil: Chain) -> None:
    ledger = anvil.ledger()
    log = ledger.open_log(fresh())
    count = 16_000
    leaves = [b"\xff" * 32] * count
    with pytest.raises((FixInput, LedgerUnavailable), match=r"anchor fewer records|gas limit|[Gg]as"):
        ledger.anchor(log, 0, count, bytes(32), [], leaves)
    assert ledger.anchor(log, 0, 8192, bytes(32), [], leaves[:8192]).gas_used < 1 << 24


@pytest.fixture
def free_gas(tmp_path: Path) -> Iterator[str]:
    """A chain before London with a gas price of zero, as consortium chains have it, and accounts without any coin."""
    program = find_binary("ganache", _places())
    if program is None:
        pytest.skip("no ganache here")
    port = _free_port()
    arguments = ["--chain.hardfork", "berlin", "--miner.defaultGasPrice", "0", "--wallet.mnemonic", MNEMONIC]
    arguments += ["--server.port", str(port), "--server.host", "127.0.0.1", "--chain.chainId", "31337"]
    process = subprocess.Popen([str(program), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        try:
            return bool(Endpoint(url).call("eth_chainId"))
        except LedgerUnavailable:
            return False

    wait_until(is_up)
    yield url
    process.terminate()
    process.wait(10)


def test_a_consortium_chain_with_free_gas_needs_no_coins(free_gas: str) -> None:
    endpoints, nobody = [Endpoint(free_gas)], new_account()
    deployed = deploy(endpoints, nobody)
    nodes = Nodes(endpoints, deployed.chain_id, deployed.genesis_hash)
    sender = Sender(endpoints, nobody, deployed.chain_id, QUICK)
    ledger = Ledger(nodes, deployed.anchor_log, deployed.device_registry, sender=sender)
    log = ledger.open_log(fresh())
    receipt = ledger.anchor(log, 0, 3, b"\3" * 32, [0], [b"\1" * 32] * 3)
    assert receipt.fee_wei == 0
    seen = ledger.sighting(log, 3)
    assert seen is not None
    assert seen.gas_used == receipt.gas_used
    assert Devnet(Path("/nonexistent")).status() is None
