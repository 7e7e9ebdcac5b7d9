"""Finality with and without block tags, events in bounded ranges, and strict reading of a node's values."""

from __future__ import annotations

import pytest

from ledger.chain import Depths, Endpoint, FeePolicy, Heights, Ledger, Nodes
from ledger.chain.devnet import make_block
from ledger.chain.reading import LAG
from ledger.chain.rpc import Call, Refusal, octets, quantity
from ledger.core.errors import FixInput, LedgerDisagrees, LedgerUnavailable
from tests.chain.conftest import Chain, fresh
from tests.simulators.rpc import FaultyNode


def test_tags_say_what_is_final_and_depths_where_there_are_none(own_anvil: Chain) -> None:
    for _ in range(10):
        make_block(Endpoint(own_anvil.url))
    newest = Nodes([Endpoint(own_anvil.url)]).heights().included
    assert Nodes([Endpoint(own_anvil.url)]).heights() == Heights(newest, newest - 1, newest - 2)
    with FaultyNode(own_anvil.url) as node:
        node.has_tags = False
        endpoints = [Endpoint(node.url)]
        assert Nodes(endpoints, depths=Depths(safe=3, final=7)).heights() == Heights(newest, newest - 3, newest - 7)
        assert Nodes(endpoints, depths=Depths(safe=3, final=7000)).heights().final == 0


def test_finality_of_a_block() -> None:
    heights = Heights(included=10, safe=8, final=5)
    assert [heights.finality(number) for number in (10, 9, 8, 6, 5, 0)] == [
        "included",
        "included",
        "safe",
        "safe",
        "final",
        "final",
    ]
    assert (heights.settled("included"), heights.settled("safe"), heights.settled("final")) == (10, 8, 5)


def test_events_are_found_however_far_back_in_bounded_ranges(own_anvil: Chain) -> None:
    ledger = own_anvil.ledger()
    log = ledger.open_log(fresh())
    first = ledger.anchor(log, 0, 4, b"\4" * 32, []).block_number
    Endpoint(own_anvil.url).call("anvil_mine", hex(100))
    with FaultyNode(own_anvil.url) as node:
        nodes = Nodes([Endpoint(node.url)], event_span=5)
        seen = Ledger(nodes, own_anvil.deployed.anchor_log, own_anvil.deployed.device_registry).sighting(log, 4)
        assert seen is not None
        assert (seen.state, seen.block_number) == ("final", first)
        assert 20 <= node.calls.count("eth_getLogs") <= 24
        assert node.http_requests <= 8


def test_a_node_that_refuses_wide_ranges_is_asked_for_narrower_ones(anvil: Chain) -> None:
    ledger = anvil.ledger()
    log = ledger.open_log(fresh())
    ledger.anchor(log, 0, 4, b"\4" * 32, [])
    widths: list[int] = []

    class Narrow(Endpoint):
        """A node that gives logs of at most 2 blocks at once."""

        def batch(self, calls):  # type: ignore[no-untyped-def]
            answers = super().batch(calls)
            for number, call in enumerate(calls):
                if call.method == "eth_getLogs":
                    width = int(call.parameters[0]["toBlock"], 16) - int(call.parameters[0]["fromBlock"], 16) + 1
                    widths.append(width)
                    if width > 2:
                        answers[number] = Refusal(-32005, "query exceeds the range limit of 2")
            return answers

    narrow = Ledger.connect([Narrow(anvil.url)], anvil.trust)
    assert narrow.sighting(log, 4) is not None
    assert min(widths) <= 2


def test_a_node_without_proofs_cannot_be_used(anvil: Chain, node: FaultyNode) -> None:
    node.withheld_methods = {"eth_getProof"}
    with pytest.raises(LedgerUnavailable, match="refuses eth_getProof"):
        anvil.ledger(node.url)


def test_a_node_without_tip_advice_still_takes_transactions(anvil: Chain, node: FaultyNode) -> None:
    node.withheld_methods = {"eth_maxPriorityFeePerGas"}
    ledger = anvil.ledger(node.url, fees=FeePolicy(give_up_after_s=5))
    assert ledger.anchor(ledger.open_log(fresh()), 0, 1, bytes(32), []).gas_used > 0


@pytest.mark.parametrize(
    "url", ["", "localhost:8545", "ws://127.0.0.1:1", "http://", "http://127.0.0.1:notaport", "file:///etc"]
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(FixInput):
        Endpoint(url)


def test_nobody_listening_is_unavailable() -> None:
    with pytest.raises(LedgerUnavailable, match=r"nothing answers at 127\.0\.0\.1:9: is the node running"):
        Endpoint("http://127.0.0.1:9").call("eth_chainId")
    with pytest.raises(FixInput, match="no RPC URL"):
        Nodes([])


@pytest.mark.parametrize("value", [None, 1, "", "1", "0x", "0xg", "-0x1", "0x" + "f" * 65, ["0x1"], True])
def test_a_quantity_is_hex_or_refused(value: object) -> None:
    with pytest.raises(LedgerDisagrees):
        quantity(value, "number")


@pytest.mark.parametrize("value", [None, 1, "", "00", "0x0", "0xgg", "0x" + "00" * 31, b"\0" * 32, {}])
def test_bytes_are_hex_of_their_size_or_refused(value: object) -> None:
    with pytest.raises(LedgerDisagrees):
        octets(value, "hash", 32)


def test_more_calls_than_a_batch_holds_keep_their_order(anvil: Chain, node: FaultyNode) -> None:
    endpoint = Endpoint(node.url, batch_limit=7)
    numbers = list(range(20)) * 2
    answers = endpoint.batch([Call("web3_sha3", (f"0x{number:02x}",)) for number in numbers])
    assert answers[:20] == answers[20:]
    assert len(set(answers)) == 20
    assert node.http_requests == 6


def test_a_node_that_is_far_behind_does_not_decide_for_all(own_anvil: Chain) -> None:
    with FaultyNode(own_anvil.url) as node:
        node.fault = "stale head"
        for _ in range(LAG + 5):
            make_block(Endpoint(own_anvil.url))
        with pytest.raises(LedgerUnavailable, match="behind"):
            Nodes([Endpoint(own_anvil.url), Endpoint(node.url)]).heights()
