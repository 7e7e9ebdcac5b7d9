"""The ledger on each kind of chain: anvil (osaka, paris) and ganache. web3.py, which shares no code with it, reads the same."""

from __future__ import annotations

import hashlib
import json
import time
from importlib import resources
from typing import Any

import pytest
from web3 import Web3

from ledger.chain import Endpoint, Head, Ledger, Nodes, code_hashes
from ledger.chain.contracts import artefact
from ledger.chain.devnet import account, make_block
from ledger.chain.rpc import Call
from ledger.core import contracts
from ledger.core.contracts import Beacon, KeyState
from ledger.core.errors import FixInput, LedgerDisagrees, NeedPermission, TryLater
from ledger.core.proof import ProvenState
from ledger.core.records import Role
from ledger.core.trust import Contract
from tests.chain.conftest import Chain, fresh
from tests.simulators.rpc import FaultyNode


def web3_contract(chain: Chain, name: str, address: bytes) -> Any:
    content = json.loads((resources.files("ledger.chain") / "artefacts" / f"{name}.json").read_text())
    web3 = Web3(Web3.HTTPProvider(chain.url))
    return web3.eth.contract(address=web3.to_checksum_address(address), abi=content["abi"])


def advance(chain: Chain, blocks: int) -> None:
    for _ in range(blocks):
        assert make_block(Endpoint(chain.url))


def test_a_deployment_has_the_shipped_code(chain: Chain) -> None:
    nodes = Nodes([Endpoint(chain.url)])
    addresses = [chain.deployed.anchor_log.address, chain.deployed.device_registry.address]
    expected = [artefact("AnchorLog").code_hash, artefact("DeviceRegistry").code_hash]
    assert code_hashes(nodes, addresses) == expected
    assert nodes.identity() == (chain.deployed.chain_id, chain.deployed.genesis_hash)


def test_a_log_is_opened_once_and_belongs_to_its_owner(chain: Chain, word: bytes) -> None:
    ledger = chain.ledger()
    log = ledger.open_log(word)
    owner = bytes.fromhex(account().address[2:])
    assert log == contracts.log_id(owner, word)
    assert ledger.open_log(word) == log
    assert ledger.head(log) == Head(owner, owner, 0)
    assert ledger.anchored_size(fresh()) == 0
    other = bytes.fromhex(account(1).address[2:])
    ledger.set_anchorer(log, other)
    assert ledger.head(log).anchorer == other
    with pytest.raises(NeedPermission, match="NotAnchorer"):
        ledger.anchor(log, 0, 1, bytes(32), [])
    assert chain.ledger(number=1).anchor(log, 0, 1, bytes(32), []).gas_used < 100_000


def test_an_anchor_is_in_storage_as_written_and_seen_with_its_beacons(chain: Chain, word: bytes) -> None:
    ledger = chain.ledger()
    log = ledger.open_log(word)
    beacon = ledger.beacon().header
    receipt = ledger.anchor(log, 0, 7, b"\7" * 32, [beacon.number, 1 << 60])
    seen = ledger.sighting(log, 7)
    assert seen is not None
    assert (seen.block_number, seen.block_hash, seen.block_time) == (
        receipt.block_number,
        receipt.block_hash,
        receipt.block_time,
    )
    assert seen.gas_used == receipt.gas_used
    assert receipt.fee_wei >= 0
    assert seen.beacons == (Beacon(beacon.number, beacon.hash), Beacon(1 << 60, bytes(32)))
    committed = contracts.anchor_commitment(b"\7" * 32, 0, seen.block_number, seen.block_time, seen.beacons)
    independent = web3_contract(chain, "AnchorLog", chain.deployed.anchor_log.address)
    assert independent.functions.anchors(log, 7).call() == committed
    assert independent.functions.head(log).call()[2] == 7 == ledger.anchored_size(log)
    assert ledger.sighting(log, 8) is None
    assert ledger.sighting(fresh(), 7) is None


def test_an_anchor_is_taken_only_on_top_of_the_head(chain: Chain, word: bytes) -> None:
    ledger = chain.ledger()
    log = ledger.open_log(word)
    ledger.anchor(log, 0, 5, b"\5" * 32, [])
    with pytest.raises(TryLater, match=r"NotTheHead.*headSize 5, oldSize 0"):
        ledger.anchor(log, 0, 6, b"\6" * 32, [])
    with pytest.raises(FixInput, match="NotGrowing"):
        ledger.anchor(log, 5, 5, b"\6" * 32, [])
    with pytest.raises(FixInput, match="WrongLeafCount"):
        ledger.anchor(log, 5, 7, b"\6" * 32, [], [bytes(32)])
    with pytest.raises(FixInput, match="does not fit"):
        ledger.anchor(log, 5, 1 << 64, b"\6" * 32, [])


def test_published_leaves_are_in_the_calldata(chain: Chain, word: bytes) -> None:
    ledger = chain.ledger()
    log = ledger.open_log(word)
    leaves = [bytes([number]) * 32 for number in range(1, 4)]
    receipt = ledger.anchor(log, 0, 3, b"\3" * 32, [], leaves)
    independent = web3_contract(chain, "AnchorLog", chain.deployed.anchor_log.address)
    web3 = Web3(Web3.HTTPProvider(chain.url))
    sent = web3.eth.get_transaction("0x" + receipt.transaction.hex())
    _, arguments = independent.decode_function_input(sent["input"])
    assert arguments["leaves"] == leaves
    assert ledger.sighting(log, 3) is not None


def test_an_anchor_becomes_final_and_is_proven_for_ever(chain: Chain, word: bytes) -> None:
    ledger = chain.ledger()
    log, key, certificate = ledger.open_log(word), fresh(), fresh()
    enrolled = ledger.enrol(key, certificate, fresh(), Role.ACQUIRE | Role.TRANSFORM)
    root, receipt = b"\x11" * 32, ledger.anchor(log, 0, 9, b"\x11" * 32, [])
    seen = ledger.sighting(log, 9)
    assert seen is not None
    assert seen.state == ("final" if chain.name == "ganache" else "included")
    advance(chain, 2)
    seen = ledger.sighting(log, 9)
    assert seen is not None
    assert seen.state == "final"
    proof = ledger.proof(log, 9, [key, fresh()])
    advance(chain, 1)
    proven = ProvenState(proof.header, proof.nodes)
    stored = proven.word(chain.deployed.anchor_log, contracts.anchor_slot(log, 9))
    expected = contracts.anchor_commitment(root, 0, receipt.block_number, receipt.block_time, ())
    assert stored == int.from_bytes(expected, "big")
    words = (proven.word(chain.deployed.device_registry, slot) for slot in contracts.key_slots(key))
    expected_state = KeyState(certificate, enrolled.block_time, 0, 0, Role.ACQUIRE | Role.TRANSFORM)
    assert KeyState.from_words(*words) == expected_state
    final, hashes = ledger.final_blocks([receipt.block_number, 1 << 40])
    assert hashes == {receipt.block_number: receipt.block_hash, final: ledger.blocks([final])[final].header.hash}


def test_a_key_lives_as_the_registry_says(chain: Chain) -> None:
    ledger = chain.ledger()
    key, new_key, device = fresh(), fresh(), fresh()
    assert ledger.key_state(key) == KeyState(bytes(32), 0, 0, 0, Role(0))
    enrolled = ledger.enrol(key, b"\xaa" * 32, device, Role.ACQUIRE)
    assert ledger.key_state(key) == KeyState(b"\xaa" * 32, enrolled.block_time, 0, 0, Role.ACQUIRE)
    rotated = ledger.rotate(key, new_key, b"\xbb" * 32, device)
    since = rotated.block_time - 1000
    ledger.revoke(new_key, since)
    ledger.set_seals_everything_since(device, since)
    ledger.retire(new_key)
    facts = ledger.facts([0, rotated.block_number, 1 << 50], [key, new_key, fresh()], [device, fresh()])
    assert facts.keys[key].retired_at == rotated.block_time
    assert facts.keys[new_key].compromised_since == since
    assert list(facts.devices.values()) == [since, 0]
    assert facts.blocks[rotated.block_number] == rotated.block_hash
    assert 1 << 50 not in facts.blocks
    independent = web3_contract(chain, "DeviceRegistry", chain.deployed.device_registry.address)
    known = facts.keys[new_key]
    assert independent.functions.keys(new_key).call() == [
        known.certificate,
        known.enrolled_at,
        known.retired_at,
        known.compromised_since,
        int(known.roles),
    ]
    listed = {entry.key: entry for entry in ledger.enrolled()}
    assert listed[new_key].state == known
    assert (listed[key].device, listed[key].seals_everything_since) == (device, since)
    assert [entry.key for entry in ledger.enrolled(rotated.block_number)] == [new_key]


def test_the_registry_refuses_with_its_reason(chain: Chain) -> None:
    ledger, key = chain.ledger(), fresh()
    ledger.enrol(key, fresh(), fresh(), Role.ACQUIRE)
    with pytest.raises(FixInput, match=f"AlreadyEnrolled.*0x{key.hex()}"):
        ledger.enrol(key, fresh(), fresh(), Role.ACQUIRE)
    with pytest.raises(FixInput, match="NotEnrolled"):
        ledger.retire(fresh())
    with pytest.raises(FixInput, match="NoRoles"):
        ledger.enrol(fresh(), fresh(), fresh(), Role(0))
    with pytest.raises(FixInput, match="ImpossibleDate"):
        ledger.revoke(key, int(time.time()) + 100_000_000)
    with pytest.raises(NeedPermission, match="AccessControlUnauthorizedAccount"):
        chain.ledger(number=2).enrol(fresh(), fresh(), fresh(), Role.ACQUIRE)
    with pytest.raises(FixInput, match="needs a chain account"):
        chain.ledger(number=None).retire(key)


def test_another_address_or_code_is_named_with_what_to_do(chain: Chain) -> None:
    nodes = Nodes([Endpoint(chain.url)])
    registry, log = chain.deployed.device_registry, chain.deployed.anchor_log
    nobody = Contract(address=b"\x77" * 20, code_hash=log.code_hash)
    with pytest.raises(LedgerDisagrees, match=r"no contract stands at 0x7777.*scanseal deploy"):
        Ledger(nodes, nobody, registry).anchored_size(fresh())
    with pytest.raises(LedgerDisagrees, match="another one than the trust file's"):
        Ledger(nodes, registry.model_copy(update={"code_hash": log.code_hash}), registry).anchored_size(fresh())
    with pytest.raises(LedgerDisagrees, match="no contract stands"):
        code_hashes(nodes, [nobody.address])


def test_a_thousand_keys_cost_as_many_requests_as_one(chain: Chain) -> None:
    """Three rounds to the node for whatever number of images is verified; a round is one HTTP request per hundred calls."""
    with FaultyNode(chain.url) as node:
        ledger = chain.ledger(node.url, number=None)
        node.http_requests = 0
        facts = ledger.facts([0, 1], [fresh() for _ in range(1000)], [fresh()])
        assert node.http_requests == 3
        assert len(facts.keys) == 1000


def test_batches_are_many_times_faster_than_single_calls(anvil: Chain) -> None:
    endpoint = Endpoint(anvil.url)
    call = Call("eth_getStorageAt", ("0x" + anvil.deployed.anchor_log.address.hex(), "0x0", "latest"))
    endpoint.batch([call])
    start = time.perf_counter()
    for _ in range(200):
        endpoint.call(call.method, *call.parameters)
    single = (time.perf_counter() - start) / 200
    start = time.perf_counter()
    endpoint.batch([call] * 2000)
    batched = (time.perf_counter() - start) / 2000
    assert batched * 3 < single


def test_the_slots_in_the_core_are_those_of_the_shipped_artefacts() -> None:
    from ledger.chain.ledger import HEADS_SLOT

    slots = {}
    for name in ("AnchorLog", "DeviceRegistry"):
        content = json.loads((resources.files("ledger.chain") / "artefacts" / f"{name}.json").read_text())
        slots |= {variable["label"]: variable["slot"] for variable in content["storageLayout"]["variables"]}
    assert slots["heads"] == HEADS_SLOT
    assert slots["anchors"] == contracts.ANCHORS_SLOT
    assert slots["keys"] == contracts.KEYS_SLOT
    assert slots["sealsEverythingSince"] == contracts.SEALS_EVERYTHING_SLOT


def test_calldata_is_what_web3_encodes(anvil: Chain, word: bytes) -> None:
    ours = artefact("AnchorLog")
    theirs = web3_contract(anvil, "AnchorLog", anvil.deployed.anchor_log.address)
    arguments = [word, 1, 2, hashlib.sha256(word).digest(), [5, 6], [word, word]]
    assert ours.call_data("anchorWithLeaves", *arguments).hex() == theirs.encode_abi("anchorWithLeaves", arguments)[2:]
