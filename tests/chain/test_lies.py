"""No lie and no failure of a node becomes a fact: each ends in LedgerDisagrees or LedgerUnavailable, and loses nothing."""

from __future__ import annotations

import time

import pytest

from ledger.chain import Endpoint, FeePolicy, Ledger, Nodes
from ledger.chain.devnet import account, make_block
from ledger.chain.reading import LAG
from ledger.core.errors import LedgerDisagrees, LedgerUnavailable
from ledger.core.records import Role
from tests.chain.conftest import Chain, fresh
from tests.simulators.rpc import FAILURES, LIES, FaultyNode

READING_LIES = {
    "wrong chain id",
    "false root",
    "false value",
    "pruned proof",
    "false head",
    "false fields",
    "other block",
    "false state",
    "other answers",
    "missing answer",
    "wrong types",
}
SIGHTING_LIES = READING_LIES | {
    "false event",
    "false beacon",
    "moved event",
    "foreign event",
    "hidden events",
    "moved receipt",
}


@pytest.fixture
def through(anvil: Chain, node: FaultyNode) -> Ledger:
    """A ledger that asks the proxy, connected before it starts to lie."""
    return anvil.ledger(node.url)


def anchored(ledger: Ledger) -> bytes:
    log = ledger.open_log(fresh())
    ledger.anchor(log, 0, 5, b"\5" * 32, [ledger.beacon().header.number])
    return log


def test_without_a_fault_the_proxy_is_the_real_node(anvil: Chain, node: FaultyNode, through: Ledger) -> None:
    log = anchored(through)
    assert through.sighting(log, 5) == anvil.ledger().sighting(log, 5)


@pytest.mark.parametrize("lie", sorted(SIGHTING_LIES))
def test_a_false_sighting_is_no_sighting(node: FaultyNode, through: Ledger, lie: str) -> None:
    log = anchored(through)
    through = _forgetful(through)
    node.fault = lie
    with pytest.raises((LedgerDisagrees, LedgerUnavailable)):
        through.sighting(log, 5)
    node.fault = None
    assert through.sighting(log, 5) is not None


@pytest.mark.parametrize("lie", sorted(READING_LIES))
def test_a_false_registry_is_no_fact(node: FaultyNode, through: Ledger, lie: str) -> None:
    key, device = fresh(), fresh()
    through.enrol(key, fresh(), device, Role.ACQUIRE)
    node.fault = lie
    with pytest.raises((LedgerDisagrees, LedgerUnavailable)):
        through.facts([1, 2], [key], [device])


@pytest.mark.parametrize("lie", sorted(READING_LIES))
def test_a_false_proof_of_absence_is_no_fact(node: FaultyNode, through: Ledger, lie: str) -> None:
    """The lie that would hide a revocation: the registry knows nothing of the key."""
    node.fault = lie
    with pytest.raises((LedgerDisagrees, LedgerUnavailable)):
        through.facts([], [fresh()], [fresh()])


@pytest.mark.parametrize("lie", sorted(SIGHTING_LIES | {"false receipt"}))
def test_an_anchor_counts_only_when_it_is_proven(anvil: Chain, node: FaultyNode, through: Ledger, lie: str) -> None:
    log = through.open_log(fresh())
    node.fault = lie
    with pytest.raises((LedgerDisagrees, LedgerUnavailable)):
        through.anchor(log, 0, 3, b"\3" * 32, [])
    if lie in ("false receipt", "wrong chain id"):  # nothing was sent
        assert anvil.ledger().anchored_size(log) == 0


@pytest.mark.parametrize("lie", ["false receipt", "moved receipt", "false root", "false state"])
def test_a_write_to_the_registry_counts_only_when_it_is_proven(node: FaultyNode, through: Ledger, lie: str) -> None:
    node.fault = lie
    with pytest.raises((LedgerDisagrees, LedgerUnavailable)):
        through.enrol(fresh(), fresh(), fresh(), Role.ACQUIRE)


@pytest.mark.parametrize("lie", ["wrong chain id", "false genesis", "false fields", "false state", "false root"])
def test_a_ledger_does_not_connect_to_a_liar(anvil: Chain, node: FaultyNode, lie: str) -> None:
    node.fault = lie
    with pytest.raises(LedgerDisagrees):
        anvil.ledger(node.url)


@pytest.mark.parametrize("lie", ["false state", "false genesis", "false fields"])
def test_a_second_node_shows_what_one_alone_could_invent(anvil: Chain, node: FaultyNode, lie: str) -> None:
    both = anvil.ledger(anvil.url, node.url)
    node.fault = lie
    with pytest.raises(LedgerDisagrees):
        both.facts([0, 1], [], [])


@pytest.mark.parametrize("lie", ["false head", "stale head"])
def test_nodes_whose_heads_are_far_apart_are_out_of_reach(anvil: Chain, node: FaultyNode, lie: str) -> None:
    both = anvil.ledger(anvil.url, node.url)
    for _ in range(LAG + 1):
        make_block(Endpoint(anvil.url))
    node.fault = lie
    with pytest.raises(LedgerUnavailable, match="blocks behind"):
        both.heights()


def test_an_older_block_is_not_taken_for_the_one_asked_for(anvil: Chain, node: FaultyNode, through: Ledger) -> None:
    node.fault = "other block"
    with pytest.raises(LedgerDisagrees, match="shows block 1 as block 2"):
        through.blocks([2])


def test_two_chains_are_a_disagreement(anvil: Chain, own_anvil: Chain) -> None:
    both = Nodes([Endpoint(anvil.url), Endpoint(own_anvil.url)])
    with pytest.raises(LedgerDisagrees, match="different blocks 0"):
        both.identity()
    with pytest.raises(LedgerDisagrees, match="same chain id, another chain"):
        anvil.ledger(own_anvil.url)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_node_is_unavailable_within_its_time(anvil: Chain, node: FaultyNode, failure: str) -> None:
    ledger = Ledger.connect([Endpoint(node.url, timeout_s=1, answer_limit=1 << 22)], anvil.trust)
    node.fault = failure
    start = time.monotonic()
    with pytest.raises(LedgerUnavailable) as raised:
        ledger.facts([1], [fresh()], [])
    assert time.monotonic() - start < 5
    assert "127.0.0.1" in str(raised.value)
    if failure == "flood":
        assert f"more than {1 << 22} bytes" in str(raised.value)
    node.fault = None
    assert ledger.facts([1], [], []).blocks[1]


@pytest.mark.parametrize("failure", FAILURES)
def test_an_anchor_through_a_failing_node_can_be_repeated(anvil: Chain, node: FaultyNode, failure: str) -> None:
    ledger = Ledger.connect([Endpoint(node.url, timeout_s=1, answer_limit=1 << 22)], anvil.trust, account())
    log = ledger.open_log(fresh())
    node.fault = failure
    with pytest.raises(LedgerUnavailable):
        ledger.anchor(log, 0, 3, b"\3" * 32, [])
    node.fault = None
    assert ledger.anchor(log, ledger.anchored_size(log), 3, b"\3" * 32, []).gas_used > 21_000


def test_one_silent_node_of_two_is_unavailable_and_does_not_stop_a_transaction(anvil: Chain, node: FaultyNode) -> None:
    both = [Endpoint(anvil.url), Endpoint(node.url, timeout_s=1)]
    ledger = Ledger.connect(both, anvil.trust, account(), fees=FeePolicy(give_up_after_s=5))
    log = ledger.open_log(fresh())
    node.fault = "http 500"
    with pytest.raises(LedgerUnavailable, match="HTTP status 500"):
        ledger.anchor(log, 0, 3, b"\3" * 32, [])
    assert anvil.ledger().anchored_size(log) == 3


def test_credentials_in_the_url_are_in_no_message(anvil: Chain, node: FaultyNode) -> None:
    secret = node.url.replace("http://", "http://user:hunter2@") + "/v3/0123456789abcdef?key=abcdef"
    node.fault = "http 500"
    with pytest.raises(LedgerUnavailable) as raised:
        Endpoint(secret).call("eth_chainId")
    for part in ("hunter2", "user", "0123456789abcdef", "key="):
        assert part not in str(raised.value)


def test_every_lie_is_told_in_some_test() -> None:
    told = SIGHTING_LIES | {"false receipt", "false genesis", "stale head"}
    assert told == set(LIES)


def _forgetful(ledger: Ledger) -> Ledger:
    """The same ledger without what it remembers of its own transactions."""
    return Ledger(ledger._nodes, ledger._anchor_log, ledger._registry, sender=ledger._sender)
