"""The shipped bytecode on real nodes, old rules and new: what it takes and refuses, what it stores where. FORMAT.md §5."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from eth_abi.abi import encode
from eth_abi.packed import encode_packed
from eth_utils.crypto import keccak
from web3.contract import Contract

from ledger.core import contracts
from ledger.core.records import Role
from tests.contracts.local_chains import NODES, Chain, artefact, running

LOG_KEY = bytes(range(32))
ROOT_1, ROOT_2 = keccak(b"root 1"), keccak(b"root 2")


@pytest.fixture(scope="module", params=NODES)
def chain(request: pytest.FixtureRequest) -> Iterator[Chain]:
    with running(request.param) as started:
        yield started


@dataclass(frozen=True)
class Log:
    """An AnchorLog with one open log."""

    contract: Contract
    id: bytes
    owner: str
    anchorer: str
    stranger: str


@pytest.fixture
def log(chain: Chain) -> Log:
    owner, anchorer, stranger = chain.accounts[:3]
    contract = chain.deploy("AnchorLog")
    chain.do(contract.functions.open(hashlib.sha256(LOG_KEY).digest(), anchorer), owner)
    return Log(contract, contracts.log_id(bytes.fromhex(owner[2:]), LOG_KEY), owner, anchorer, stranger)


@dataclass(frozen=True)
class Registry:
    """A DeviceRegistry with an admin and a registrar."""

    contract: Contract
    admin: str
    registrar: str


@pytest.fixture
def registry(chain: Chain) -> Registry:
    admin, registrar = chain.accounts[3:5]
    return Registry(chain.deploy("DeviceRegistry", admin, registrar), admin, registrar)


def committed(chain: Chain, receipt_block: int, root: bytes, old_size: int, beacons: list[contracts.Beacon]) -> bytes:
    """The formula of FORMAT.md §5, written out once more beside `ledger.core.contracts.anchor_commitment`."""
    block = chain.web3.eth.get_block(receipt_block)
    packed = b"".join(encode_packed(["uint64", "bytes32"], [beacon.number, beacon.hash]) for beacon in beacons)
    words = encode(
        ["bytes32", "uint256", "uint256", "uint256", "bytes32"],
        [root, old_size, block["number"], block["timestamp"], keccak(packed)],
    )
    assert contracts.anchor_commitment(root, old_size, block["number"], block["timestamp"], beacons) == keccak(words)
    return keccak(words)


@pytest.mark.parametrize("name", ["AnchorLog", "DeviceRegistry"])
def test_the_code_on_chain_has_the_code_hash_of_the_artefact(chain: Chain, name: str) -> None:
    contract = chain.deploy(name, *(chain.accounts[:2] if name == "DeviceRegistry" else ()))
    assert "0x" + keccak(chain.web3.eth.get_code(contract.address)).hex() == artefact(name)["codeHash"]


def test_a_log_opens_under_the_id_of_its_owner_and_key(chain: Chain, log: Log) -> None:
    assert log.contract.functions.head(log.id).call() == [log.owner, log.anchorer, 0]
    (event,) = log.contract.events.LogOpened.get_logs(from_block=0)
    assert event["args"] == {
        "log": log.id,
        "owner": log.owner,
        "key": hashlib.sha256(LOG_KEY).digest(),
        "anchorer": log.anchorer,
    }
    again = log.contract.functions.open(hashlib.sha256(LOG_KEY).digest(), log.stranger)
    assert chain.refusal(again, log.owner) == ("AlreadyOpen", log.id)


def test_an_anchor_stores_the_commitment_in_the_slot_of_the_format(chain: Chain, log: Log) -> None:
    chain.mine(3)
    newest = chain.web3.eth.get_block("latest")
    genesis = chain.web3.eth.get_block(0)
    beacons = [
        contracts.Beacon(newest["number"], bytes(newest["hash"])),
        contracts.Beacon(0, bytes(genesis["hash"])),
        contracts.Beacon(newest["number"] + 5, bytes(32)),
    ]
    call = log.contract.functions.anchor(log.id, 0, 5, ROOT_1, [beacon.number for beacon in beacons])
    receipt = chain.do(call, log.anchorer)
    expected = committed(chain, receipt["blockNumber"], ROOT_1, 0, beacons)

    assert log.contract.functions.anchors(log.id, 5).call() == expected
    assert chain.word(log.contract, contracts.anchor_slot(log.id, 5)) == int.from_bytes(expected, "big")
    (event,) = log.contract.events.Anchored().process_receipt(receipt)
    assert {name: event["args"][name] for name in ("log", "oldSize", "newSize", "root")} == {
        "log": log.id,
        "oldSize": 0,
        "newSize": 5,
        "root": ROOT_1,
    }
    assert event["args"]["beacons"] == b"".join(beacon.number.to_bytes(8, "big") + beacon.hash for beacon in beacons)


def test_the_head_is_the_first_word_of_slot_0(chain: Chain, log: Log) -> None:
    chain.do(log.contract.functions.anchor(log.id, 0, 5, ROOT_1, []), log.anchorer)
    slot = contracts.mapping_slot(log.id, bytes(32))
    assert chain.word(log.contract, slot) == 5 << 160 | int(log.anchorer, 16)
    assert chain.word(log.contract, int.from_bytes(slot, "big") + 1) == int(log.owner, 16)


def test_a_beacon_older_than_256_blocks_commits_the_zero_hash(chain: Chain, log: Log) -> None:
    beacon = chain.web3.eth.block_number
    chain.mine(260)
    receipt = chain.do(log.contract.functions.anchor(log.id, 0, 1, ROOT_1, [beacon]), log.anchorer)
    expected = committed(chain, receipt["blockNumber"], ROOT_1, 0, [contracts.Beacon(beacon, bytes(32))])
    assert log.contract.functions.anchors(log.id, 1).call() == expected


def test_an_anchor_on_an_old_head_reverts_and_changes_nothing(chain: Chain, log: Log) -> None:
    chain.do(log.contract.functions.anchor(log.id, 0, 5, ROOT_1, []), log.anchorer)
    before = log.contract.functions.anchors(log.id, 5).call()
    repeated = log.contract.functions.anchor(log.id, 0, 5, ROOT_2, [])
    assert chain.refusal(repeated, log.anchorer) == ("NotTheHead", log.id, 5, 0)
    assert chain.send(repeated, log.anchorer)["status"] == 0
    assert chain.refusal(log.contract.functions.anchor(log.id, 5, 5, ROOT_2, []), log.anchorer) == ("NotGrowing", 5, 5)
    assert log.contract.functions.anchors(log.id, 5).call() == before
    assert log.contract.functions.head(log.id).call()[2] == 5


def test_a_stranger_neither_anchors_nor_stops_an_anchor(chain: Chain, log: Log) -> None:
    stranger = log.stranger.lower()
    for call in (
        log.contract.functions.anchor(log.id, 0, 9, ROOT_2, []),
        log.contract.functions.anchorWithLeaves(log.id, 0, 1, ROOT_2, [], [ROOT_2]),
    ):
        assert chain.refusal(call, log.stranger) == ("NotAnchorer", log.id, stranger)
        assert chain.send(call, log.stranger)["status"] == 0
    takeover = log.contract.functions.setAnchorer(log.id, log.stranger)
    assert chain.refusal(takeover, log.stranger) == ("NotOwner", log.id, stranger)
    assert chain.send(takeover, log.stranger)["status"] == 0
    chain.do(log.contract.functions.open(hashlib.sha256(LOG_KEY).digest(), log.stranger), log.stranger)
    chain.do(log.contract.functions.anchor(log.id, 0, 5, ROOT_1, []), log.anchorer)
    assert log.contract.functions.head(log.id).call() == [log.owner, log.anchorer, 5]


def test_the_owner_hands_anchoring_over(chain: Chain, log: Log) -> None:
    chain.do(log.contract.functions.setAnchorer(log.id, log.stranger), log.owner)
    assert chain.refusal(log.contract.functions.anchor(log.id, 0, 5, ROOT_1, []), log.anchorer)[0] == "NotAnchorer"
    chain.do(log.contract.functions.anchor(log.id, 0, 5, ROOT_1, []), log.stranger)


def test_published_leaves_are_in_the_calldata_and_counted(chain: Chain, log: Log) -> None:
    leaves = [keccak(bytes([number])) for number in range(3)]
    short = log.contract.functions.anchorWithLeaves(log.id, 0, 3, ROOT_1, [], leaves[:2])
    assert chain.refusal(short, log.anchorer) == ("WrongLeafCount", 3, 2)
    receipt = chain.do(log.contract.functions.anchorWithLeaves(log.id, 0, 3, ROOT_1, [], leaves), log.anchorer)
    sent = log.contract.decode_function_input(chain.web3.eth.get_transaction(receipt["transactionHash"])["input"])
    assert sent[1]["leaves"] == leaves
    assert log.contract.functions.anchors(log.id, 3).call() == committed(chain, receipt["blockNumber"], ROOT_1, 0, [])


def test_an_anchor_costs_at_most_60_gas_an_image_at_batch_1024(
    chain: Chain, log: Log, record_property: Callable[[str, object], None]
) -> None:
    chain.do(log.contract.functions.anchor(log.id, 0, 1024, ROOT_1, [chain.web3.eth.block_number]), log.anchorer)
    call = log.contract.functions.anchor(log.id, 1024, 2048, ROOT_2, [chain.web3.eth.block_number])
    gas = chain.do(call, log.anchorer)["gasUsed"]
    record_property(f"gas of an anchor on {chain.name}", gas)
    assert gas <= 58_000
    assert gas <= 60 * 1024


def test_a_key_is_enrolled_rotated_retired_and_revoked_in_the_words_of_the_format(chain: Chain, registry: Registry) -> None:
    key, following, certificate, device = (keccak(name) for name in (b"key", b"following", b"certificate", b"device"))
    functions = registry.contract.functions

    def time_of(receipt: object) -> int:
        block: int = chain.web3.eth.get_block(receipt["blockNumber"])["timestamp"]  # type: ignore[index]
        return block

    def check(key: bytes, expected: contracts.KeyState) -> None:
        words = [chain.word(registry.contract, slot) for slot in contracts.key_slots(key)]
        assert contracts.KeyState.from_words(*words) == expected
        assert functions.keys(key).call() == [
            expected.certificate,
            expected.enrolled_at,
            expected.retired_at,
            expected.compromised_since,
            int(expected.roles),
        ]

    roles = Role.ACQUIRE | Role.TRANSFORM
    enrolled = time_of(chain.do(functions.enrol(key, certificate, device, int(roles)), registry.registrar))
    check(key, contracts.KeyState(certificate, enrolled, 0, 0, roles))
    again = functions.enrol(key, certificate, device, int(roles))
    assert chain.refusal(again, registry.registrar) == ("AlreadyEnrolled", key, enrolled)

    rotated = time_of(chain.do(functions.rotate(key, following, keccak(b"new"), device), registry.registrar))
    check(key, contracts.KeyState(certificate, enrolled, rotated, 0, roles))
    check(following, contracts.KeyState(keccak(b"new"), rotated, 0, 0, roles))

    retired = time_of(chain.do(functions.retire(following), registry.registrar))
    check(following, contracts.KeyState(keccak(b"new"), rotated, retired, 0, roles))
    assert chain.refusal(functions.retire(following), registry.registrar) == ("AlreadyRetired", following, retired)

    chain.do(functions.revoke(key, enrolled), registry.registrar)
    assert chain.refusal(functions.revoke(key, enrolled), registry.registrar) == ("NotEarlier", key, enrolled, enrolled)
    chain.do(functions.revoke(key, enrolled - 7), registry.registrar)
    check(key, contracts.KeyState(certificate, enrolled, rotated, enrolled - 7, roles))
    future = functions.revoke(following, 2**40)
    assert chain.refusal(future, registry.registrar)[:3] == ("ImpossibleDate", following, 2**40)
    assert [functions.isActiveAt(following, time).call() for time in (rotated - 1, rotated, retired, retired + 1)] == [
        False,
        True,
        True,
        False,
    ]
    assert not functions.isActiveAt(key, enrolled).call()


def test_the_keys_of_a_device_are_found_in_the_events(chain: Chain, registry: Registry) -> None:
    functions, device = registry.contract.functions, keccak(b"scanner 1")
    for number in range(3):
        owner = device if number < 2 else keccak(b"scanner 2")
        chain.do(functions.enrol(keccak(bytes([number])), keccak(b"certificate"), owner, 1), registry.registrar)
    found = registry.contract.events.KeyEnrolled.get_logs(from_block=0, argument_filters={"device": device})
    assert [event["args"]["key"] for event in found] == [keccak(bytes([number])) for number in range(2)]


def test_what_a_device_seals_is_in_the_slot_of_the_format(chain: Chain, registry: Registry) -> None:
    device = keccak(b"device")
    chain.do(registry.contract.functions.setSealsEverythingSince(device, 1_700_000_000), registry.registrar)
    assert chain.word(registry.contract, contracts.device_slot(device)) == 1_700_000_000
    assert registry.contract.functions.sealsEverythingSince(device).call() == 1_700_000_000


def test_only_registrars_write_the_registry(chain: Chain, registry: Registry) -> None:
    functions, key = registry.contract.functions, keccak(b"key")
    for sender in (chain.accounts[0], registry.admin):
        for call in (
            functions.enrol(key, key, key, 1),
            functions.rotate(key, key, key, key),
            functions.retire(key),
            functions.revoke(key, 1),
            functions.setSealsEverythingSince(key, 1),
        ):
            refusal = chain.refusal(call, sender)
            assert refusal == ("AccessControlUnauthorizedAccount", sender.lower(), keccak(b"REGISTRAR_ROLE"))
            assert chain.send(call, sender)["status"] == 0
