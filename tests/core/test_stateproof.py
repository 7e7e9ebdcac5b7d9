"""State proofs: recorded vectors of real nodes, random tries by another implementation (py-trie), and every bit flipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import rlp
from hypothesis import given, settings
from hypothesis import strategies as st
from trie import HexaryTrie

from ledger.core import stateproof
from ledger.core.errors import EvidenceInvalid
from ledger.core.stateproof import EMPTY_CODE, EMPTY_ROOT, Account
from ledger.core.typeddata import keccak256
from tests.vectors import make_stateproof

FOLDER = Path(__file__).parents[1] / "vectors" / "stateproof"
FILES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}
CASES = [pytest.param(case, id=f"{name}: {case['kind']}: {case['name']}") for name, cases in FILES.items() for case in cases]

words = st.integers(min_value=1, max_value=(1 << 256) - 1)
slots = st.binary(min_size=32, max_size=32)


def octets(case: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(case[name])


def read(case: dict[str, Any]) -> dict[str, Any]:
    """What the product reads from a case's inputs."""
    nodes = [bytes.fromhex(node) for node in case.get("nodes", ())]
    match case["kind"]:
        case "header":
            encoded = stateproof.header_rlp(case["block"])
            return {"rlp": encoded.hex(), **header_fields(encoded)}
        case "header rlp":
            return header_fields(octets(case, "rlp"))
        case "account":
            found = stateproof.verify_account(octets(case, "state_root"), octets(case, "address"), nodes)
            return {
                "nonce": found.nonce,
                "balance": hex(found.balance),
                "storage_root": found.storage_root.hex(),
                "code_hash": found.code_hash.hex(),
            }
        case "storage":
            return {"value": hex(stateproof.verify_storage(octets(case, "storage_root"), octets(case, "slot"), nodes))}
    raise ValueError(case["kind"])


def header_fields(encoded: bytes) -> dict[str, Any]:
    header = stateproof.parse_header(encoded)
    return {
        "hash": header.hash.hex(),
        "number": header.number,
        "timestamp": header.timestamp,
        "state_root": header.state_root.hex(),
        "parent_hash": header.parent_hash.hex(),
    }


@pytest.mark.parametrize("case", CASES)
def test_a_vector_is_judged_as_it_expects(case: dict[str, Any]) -> None:
    if case["expect"] == "ok":
        found = read(case)
        assert found == {name: case[name] for name in found}
    else:
        with pytest.raises(EvidenceInvalid) as raised:
            read(case)
        assert raised.value.step == case["expect"]


def test_the_crafted_vectors_are_what_their_maker_makes() -> None:
    assert FILES["crafted"] == make_stateproof.crafted()


def test_the_vectors_cover_headers_of_all_forks() -> None:
    sizes = {
        len(rlp.decode(octets(case, "rlp")))
        for cases in FILES.values()
        for case in cases
        if "rlp" in case and case["expect"] == "ok"
    }
    assert sizes >= {15, 16, 17, 21}  # before London, London and Paris, Shanghai, Prague and Osaka


def trie_of(entries: dict[bytes, int]) -> HexaryTrie:
    trie = HexaryTrie({})
    for slot, value in entries.items():
        trie[keccak256(slot)] = rlp.encode(value)
    return trie


def proof_of(trie: HexaryTrie, slot: bytes) -> list[bytes]:
    """As eth_getProof gives it: the nodes that have a hash of their own."""
    nodes = [rlp.encode(node) for node in trie.get_proof(keccak256(slot))]
    return [node for number, node in enumerate(nodes) if number == 0 or len(node) >= 32]


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(slots, words, min_size=1, max_size=40), slots)
def test_every_word_of_a_random_trie_is_proven_and_every_other_slot_is_zero(entries: dict[bytes, int], absent: bytes) -> None:
    trie = trie_of(entries)
    pool = {keccak256(node): node for slot in (*entries, absent) for node in proof_of(trie, slot)}
    for slot, value in entries.items():
        assert stateproof.verify_storage(trie.root_hash, slot, proof_of(trie, slot)) == value
        assert stateproof.verify_storage(trie.root_hash, slot, pool) == value
    if absent not in entries:
        assert stateproof.verify_storage(trie.root_hash, absent, proof_of(trie, absent)) == 0


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(slots, words, min_size=1, max_size=12), st.data())
def test_a_flipped_bit_never_verifies(entries: dict[bytes, int], data: st.DataObject) -> None:
    trie = trie_of(entries)
    slot = data.draw(st.sampled_from(sorted(entries)))
    proof = proof_of(trie, slot)
    number = data.draw(st.integers(0, len(proof) - 1))
    bit = data.draw(st.integers(0, 8 * len(proof[number]) - 1))
    node = bytearray(proof[number])
    node[bit // 8] ^= 1 << bit % 8
    proof[number] = bytes(node)
    with pytest.raises(EvidenceInvalid):
        stateproof.verify_storage(trie.root_hash, slot, proof)


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"crafted"}))
def test_no_bit_of_a_recorded_proof_can_be_flipped(name: str) -> None:
    """Every bit of one account proof and one storage proof, in a proof and in a pool that believes its own hashes."""
    for kind in ("account", "storage"):
        case = next(case for case in FILES[name] if case["kind"] == kind and case["expect"] == "ok")
        for number, text in enumerate(case["nodes"]):
            for bit in range(0, 4 * len(text), 7):
                node = bytearray.fromhex(text)
                node[bit // 8] ^= 1 << bit % 8
                changed = case | {"nodes": [*case["nodes"][:number], node.hex(), *case["nodes"][number + 1 :]]}
                with pytest.raises(EvidenceInvalid):
                    read(changed)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_read_as_another_decoder_reads_them(data: bytes) -> None:
    for parse in (
        lambda: stateproof.parse_header(data),
        lambda: stateproof.verify_storage(keccak256(data), bytes(32), [data]),
        lambda: stateproof.verify_account(keccak256(data), bytes(20), [data]),
    ):
        try:
            parse()
        except EvidenceInvalid:
            continue
        assert isinstance(rlp.decode(data), list) or data == b"\x80"  # the empty trie


def test_a_pool_that_names_a_node_wrongly_is_not_believed() -> None:
    """A verifier that keeps its nodes by a hash of somebody else's must not be led astray by it."""
    honest, forged = trie_of({bytes(32): 5}), trie_of({bytes(32): 6})
    (node,) = proof_of(forged, bytes(32))
    with pytest.raises(EvidenceInvalid, match="does not hash to"):
        stateproof.verify_storage(honest.root_hash, bytes(32), {honest.root_hash: node})


def test_an_account_that_does_not_exist_is_empty() -> None:
    assert stateproof.verify_account(EMPTY_ROOT, bytes(20), []) == Account(0, 0, EMPTY_ROOT, EMPTY_CODE)
    assert stateproof.verify_storage(EMPTY_ROOT, bytes(32), {}) == 0


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(EvidenceInvalid, match="an address has 20 bytes, not 32"):
        stateproof.verify_account(EMPTY_ROOT, bytes(32), [])
    with pytest.raises(EvidenceInvalid, match="a storage slot has 32 bytes, not 1"):
        stateproof.verify_storage(EMPTY_ROOT, b"\0", [])
    with pytest.raises(EvidenceInvalid, match="a block header of"):
        stateproof.parse_header(bytes(1 << 17))


def test_deep_nesting_costs_no_stack() -> None:
    bomb = b""
    for _ in range(20_000):
        size = len(bomb)
        if size < 56:
            bomb = bytes([0xC0 + size]) + bomb
        else:
            length = size.to_bytes((size.bit_length() + 7) // 8, "big")
            bomb = bytes([0xF7 + len(length)]) + length + bomb
    for parse in (stateproof.parse_header, lambda data: stateproof.verify_storage(keccak256(data), bytes(32), [data])):
        with pytest.raises(EvidenceInvalid):
            parse(bomb)
