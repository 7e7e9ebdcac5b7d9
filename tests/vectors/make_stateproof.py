"""Makes the vectors of state proofs: `python -m tests.vectors.make_stateproof` writes tests/vectors/stateproof/*.json.

`crafted.json` is deterministic: tries with right hashes and wrong forms. The other files are recorded from real nodes (anvil
and ganache must be installed), so their times and hashes differ each time; then some proofs are damaged in several ways.

Each file is a list of cases with `kind`, its inputs, and `expect`: `ok` with what is read, or `state proof`, the step at which
it is refused, with a `reason` in plain words. Bytes are hex, `nodes` is the proof list of `eth_getProof`, integers are numbers
or, where they may be large, hex.

| kind | inputs | what is read |
|---|---|---|
| header | `block`, as eth_getBlockByNumber answers | `rlp`, `hash`, `number`, `timestamp`, `state_root`, `parent_hash` |
| header rlp | `rlp` | the same |
| account | `state_root`, `address`, `nodes` | `nonce`, `balance`, `storage_root`, `code_hash` |
| storage | `storage_root`, `slot`, `nodes` | `value` |
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rlp

from ledger.chain import Endpoint, Ledger, Nodes, Sender, deploy
from ledger.chain.devnet import Devnet, Kind, account, make_block
from ledger.core import contracts
from ledger.core.records import Role
from ledger.core.typeddata import keccak256

FOLDER = Path(__file__).parent / "stateproof"
CHAINS: tuple[tuple[str, Kind, str], ...] = (
    ("anvil-osaka", "anvil", "osaka"),
    ("anvil-paris", "anvil", "paris"),
    ("ganache-shanghai", "ganache", "shanghai"),
    ("ganache-berlin", "ganache", "berlin"),
)
KEY = bytes.fromhex("11" * 32)

Case = dict[str, Any]


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    write("crafted", crafted())
    for name, kind, hardfork in CHAINS:
        with tempfile.TemporaryDirectory() as folder:
            devnet = Devnet(Path(folder))
            try:
                write(name, recorded(devnet.up(kind=kind, hardfork=hardfork).url))
            finally:
                devnet.down()


def write(name: str, cases: list[Case]) -> None:
    (FOLDER / f"{name}.json").write_text(json.dumps(cases, indent=1) + "\n", encoding="utf-8")


# ---- recorded from real nodes ---------------------------------------------------------------------------------------


def recorded(url: str) -> list[Case]:
    """Headers, accounts and storage of a chain with our contracts, some keys and an anchor on it; and each of them damaged."""
    endpoint = Endpoint(url)
    deployed = deploy([endpoint], account())
    sender = Sender([endpoint], account(), deployed.chain_id)
    nodes = Nodes([endpoint], deployed.chain_id, deployed.genesis_hash)
    ledger = Ledger(nodes, deployed.anchor_log, deployed.device_registry, sender=sender)
    log = ledger.open_log(KEY)
    ledger.anchor(log, 0, 9, b"\x09" * 32, [0])
    for number in range(1, 6):
        ledger.enrol(bytes([number]) * 32, b"\xce" * 32, b"\xde" * 32, Role.ACQUIRE)
    ledger.set_seals_everything_since(b"\xde" * 32, 1)
    make_block(endpoint)
    block = endpoint.call("eth_getBlockByNumber", "latest", False)
    return [
        *headers(endpoint, block),
        *accounts(endpoint, block, deployed.anchor_log.address),
        *storage(endpoint, block, deployed.anchor_log.address, deployed.device_registry.address, log),
    ]


def headers(endpoint: Endpoint, block: dict[str, Any]) -> Iterator[Case]:
    kept = ("transactions", "uncles", "withdrawals", "size", "totalDifficulty")
    for name, number in (("genesis", "0x0"), ("a block with a transaction", "0x1"), ("the newest", block["number"])):
        full = endpoint.call("eth_getBlockByNumber", number, False)
        header = {key: value for key, value in full.items() if key not in kept}
        encoded = independent_header(header)
        read = {
            "hash": header["hash"][2:],
            "number": int(header["number"], 16),
            "timestamp": int(header["timestamp"], 16),
            "state_root": header["stateRoot"][2:],
            "parent_hash": header["parentHash"][2:],
        }
        yield {"name": name, "kind": "header", "block": header, "expect": "ok", "rlp": encoded.hex(), **read}
        yield {"name": name, "kind": "header rlp", "rlp": encoded.hex(), "expect": "ok", **read}
    for field in ("stateRoot", "timestamp", "number", "extraData", "mixHash", "hash"):
        wrong = header | {field: bump(header[field])}
        yield bad("header", f"another {field}", "the fields do not hash to the hash", block=wrong)
    for field in ("stateRoot", "logsBloom", "timestamp", "hash"):
        cut = {key: value for key, value in header.items() if key != field}
        yield bad("header", f"no {field}", f"{field} is missing", block=cut)
    yield bad("header rlp", "one byte more", "not one RLP list", rlp=encoded.hex() + "00")
    yield bad("header rlp", "one byte less", "RLP ends too early", rlp=encoded.hex()[:-2])
    short = rlp.encode(rlp.decode(encoded)[:14])
    yield bad("header rlp", "a field less than any header has", "14 fields", rlp=short.hex())


def accounts(endpoint: Endpoint, block: dict[str, Any], contract: bytes) -> Iterator[Case]:
    for name, address in (
        ("a contract", contract),
        ("an account", bytes.fromhex(account().address[2:])),
        ("nobody", b"\x99" * 20),
        ("nobody else", b"\x98" * 20),
    ):
        proof = endpoint.call("eth_getProof", "0x" + address.hex(), [], block["number"])
        nodes = [node[2:] for node in proof["accountProof"]]
        inputs = {"state_root": block["stateRoot"][2:], "address": address.hex(), "nodes": nodes}
        read = {
            "nonce": int(proof["nonce"], 16),
            "balance": proof["balance"],
            "storage_root": proof["storageHash"][2:],
            "code_hash": proof["codeHash"][2:],
        }
        yield {"name": name, "kind": "account", **inputs, "expect": "ok", **read}
        if name in ("a contract", "nobody"):
            yield from damaged("account", name, inputs)
    yield bad("account", "proof of another", "a node is missing", **inputs | {"address": "97" * 20})


def storage(endpoint: Endpoint, block: dict[str, Any], anchor_log: bytes, registry: bytes, log: bytes) -> Iterator[Case]:
    first, second = contracts.key_slots(b"\x01" * 32)
    wanted = (
        ("an anchor", anchor_log, contracts.anchor_slot(log, 9)),
        ("an anchor that does not exist", anchor_log, contracts.anchor_slot(log, 10)),
        ("a key's certificate", registry, first),
        ("a key's dates and roles", registry, second),
        ("a key that was never enrolled", registry, contracts.key_slots(b"\xee" * 32)[0]),
        ("a small number", registry, contracts.device_slot(b"\xde" * 32)),
        ("a device without a date", registry, contracts.device_slot(b"\xdf" * 32)),
    )
    for name, contract, slot in wanted:
        proof = endpoint.call("eth_getProof", "0x" + contract.hex(), ["0x" + slot.hex()], block["number"])
        (entry,) = proof["storageProof"]
        nodes = [node[2:] for node in entry["proof"]]
        inputs = {"storage_root": proof["storageHash"][2:], "slot": slot.hex(), "nodes": nodes}
        yield {"name": name, "kind": "storage", **inputs, "expect": "ok", "value": entry["value"]}
        if name in ("an anchor", "a key that was never enrolled"):
            yield from damaged("storage", name, inputs)
    yield bad("storage", "proof of another slot", "a node is missing or not used", **inputs | {"slot": "96" * 32})


def damaged(kind: str, name: str, inputs: Case) -> Iterator[Case]:
    """A proof with each of its nodes missing or changed, with one too many, and against another root."""
    nodes, root = inputs["nodes"], "state_root" if kind == "account" else "storage_root"
    for position in range(len(nodes)):
        rest = nodes[:position] + nodes[position + 1 :]
        yield bad(kind, f"{name}, without node {position}", "a node is missing", **inputs | {"nodes": rest})
        changed = [*nodes]
        changed[position] = flip(changed[position], len(nodes[position]) // 3)
        yield bad(kind, f"{name}, with node {position} changed", "a node is missing", **inputs | {"nodes": changed})
    extra = [*nodes, "c22080"]
    yield bad(kind, f"{name}, with one node more", "a node proves nothing", **inputs | {"nodes": extra})
    if nodes:
        twice = [*nodes, nodes[0]]
        yield bad(kind, f"{name}, with a node twice", "a node occurs twice", **inputs | {"nodes": twice})
        other = inputs | {root: flip(inputs[root], 0)}
        yield bad(kind, f"{name}, against another root", "a node is missing", **other)


# ---- crafted --------------------------------------------------------------------------------------------------------


def crafted() -> list[Case]:
    """Tries whose hashes are right and whose nodes are not as the Yellow Paper has them; and small tries that are."""
    key = keccak256(KEY).hex()
    other = "0" if key[0] != "0" else "1"
    leaf = [prefix(key, leaf=True), rlp.encode(b"\x2a")]
    inline = [prefix(key[63:], leaf=True), rlp.encode(b"\x2a")]
    end = [prefix("", leaf=True), rlp.encode(b"\x2a" * 32)]
    branch = branch_with(key[62], [prefix(key[63:], leaf=True), rlp.encode(b"\x2a")])
    long = branch_with(key[62], [prefix(key[63:], leaf=True), rlp.encode(b"\x2a" * 20)])
    cases = [
        good("a single leaf", [leaf], "0x2a"),
        good("a single leaf of another key", [[prefix(other + key[1:], leaf=True), b"\x2a"]], "0x0"),
        good("a leaf inside its branch node", [[prefix(key[:62], leaf=False), keccak256(rlp.encode(branch))], branch], "0x2a"),
        good(
            "an extension that leads elsewhere", [[prefix(other + key[1:62], leaf=False), keccak256(rlp.encode(branch))]], "0x0"
        ),
        good("a branch without this child", [branch_with(other, keccak256(rlp.encode(leaf)))], "0x0"),
        good("the largest word", [[leaf[0], rlp.encode(b"\xff" * 32)]], hex((1 << 256) - 1)),
        {"name": "no entries", "kind": "storage", **slot_of(keccak256(b"\x80"), []), "expect": "ok", "value": "0x0"},
        {
            "name": "no entries, written",
            "kind": "storage",
            **slot_of(keccak256(b"\x80"), [b"\x80"]),
            "expect": "ok",
            "value": "0x0",
        },
        crafted_bad("no entries, and a node", "a node proves nothing", keccak256(b"\x80"), [rlp.encode(leaf)]),
    ]
    wrong: list[tuple[str, str, list[Any]]] = [
        (
            "a branch inside its parent that is no shorter than a hash",
            "a child of over 31 bytes",
            [[prefix(key[:62], leaf=False), long]],
        ),
        ("a leaf that ends too early", "the leaf's path", [[prefix(key[:-1], leaf=True), b"\x2a"]]),
        ("a leaf that goes on after the key", "the leaf's path", [[prefix(key + "0", leaf=True), b"\x2a"]]),
        ("a leaf without a value", "the leaf's value", [[prefix(key, leaf=True), b""]]),
        ("a leaf whose value is a list", "the leaf's value", [[prefix(key, leaf=True), [b"\x2a"]]]),
        ("a zero", "a trie holds no zeros", [[prefix(key, leaf=True), rlp.encode(b"")]]),
        ("a word with a leading zero", "leading zeros", [[prefix(key, leaf=True), rlp.encode(b"\x00\x2a")]]),
        ("a word of 33 bytes", "too long", [[prefix(key, leaf=True), rlp.encode(b"\x01" * 33)]]),
        ("a word and more", "one integer", [[prefix(key, leaf=True), rlp.encode(b"\x2a") + b"\x00"]]),
        ("a list as word", "one integer", [[prefix(key, leaf=True), rlp.encode([b"\x2a"])]]),
        ("an unknown path flag", "hex-prefix", [[b"\x40" + bytes.fromhex(key), b"\x2a"]]),
        ("a nonzero pad nibble", "pad nibble", [[b"\x25" + bytes.fromhex(key), b"\x2a"]]),
        ("an empty path", "hex-prefix", [[b"", b"\x2a"]]),
        ("a path that is a list", "hex-prefix", [[[b"\x20"], b"\x2a"]]),
        ("a leaf of another key without a value", "the leaf's value", [[prefix(other + key[1:], leaf=True), b""]]),
        ("a leaf of another key whose value is a list", "the leaf's value", [[prefix(other + key[1:], leaf=True), [b"\x2a"]]]),
        ("an extension without a path", "the extension's path", [[b"\x00", keccak256(rlp.encode(leaf))], leaf]),
        (
            "an extension as long as the key",
            "the extension's path",
            [[prefix(key, leaf=False), keccak256(rlp.encode(end))], end],
        ),
        ("an extension to nothing", "a child of 0 bytes", [[prefix(key[:4], leaf=False), b""]]),
        ("a child of 31 bytes", "a child of 31 bytes", [branch_with(key[0], b"\x01" * 31)]),
        ("a child of 33 bytes", "a child of 33 bytes", [branch_with(other, b"\x01" * 33)]),
        ("a branch with a value", "a branch with a value", [[*branch_with(other, keccak256(b""))[:16], b"\x2a"]]),
        ("a branch below the key's end", "deeper than the key", [chain_of_branches(key)]),
        ("a node of three items", "2 or 17 items", [[b"\x20", b"\x2a", b""]]),
        ("an empty list", "2 or 17 items", [[]]),
        ("a leaf inside its branch that is of another length", "the leaf's path", [branch_with(key[0], inline)]),
    ]
    for name, reason, parts in wrong:
        flat = [rlp.encode(part) for part in (parts[0] if isinstance(parts[0], tuple) else parts)]
        cases.append(crafted_bad(name, reason, keccak256(flat[0]), flat))
    short, long_value = b"".join(map(rlp.encode, leaf)), b"".join(map(rlp.encode, [leaf[0], rlp.encode(b"\xff" * 32)]))
    path = rlp.encode(leaf[0])
    forms = [
        ("a good leaf with a long length for a short list", "shortest form", bytes([0xF8, len(short)]) + short),
        ("a good leaf with leading zeros in its length", "shortest form", bytes([0xF9, 0, len(long_value)]) + long_value),
        (
            "a good leaf with a byte written as a string",
            "shortest form",
            bytes([0xC0 + len(path) + 3]) + path + b"\x82\x81\x2a",
        ),
        ("a good leaf whose value goes on after it", "ends too early", bytes([0xC0 + len(path) + 2]) + path + b"\x85\x2a"),
        ("a string", "not one RLP list", b"\x83abc"),
        ("an item and more", "not one RLP list", rlp.encode(leaf) + b"\x00"),
        ("a length with leading zeros", "shortest form", b"\xf9\x00\x38" + b"\x80" * 56),
        ("a long length for a short list", "shortest form", b"\xf8\x02" + b"\x20\x2a"),
        ("a byte written as a string", "shortest form", b"\xc4\x81\x20\x81\x2a"),
        ("a list that goes on after its node", "ends too early", b"\xc8\x20\x2a"),
        ("an item that goes on after its list", "ends too early", b"\xc2\x20\xb8"),
        ("a length of 2^64", "ends too early", b"\xff" + b"\xff" * 8),
        ("nothing", "ends too early", b""),
    ]
    cases += [crafted_bad(name, reason, keccak256(node), [node]) for name, reason, node in forms]
    return cases


def chain_of_branches(key: str) -> tuple[Any, ...]:
    """64 branches along the key, and one more."""
    nodes: list[Any] = [branch_with("0", keccak256(b"deep"))]
    for nibble in reversed(key):
        nodes.insert(0, branch_with(nibble, keccak256(rlp.encode(nodes[0]))))
    return tuple(nodes)


def branch_with(nibble: str, child: Any) -> list[Any]:
    branch: list[Any] = [b""] * 17
    branch[int(nibble, 16)] = child
    return branch


def prefix(path: str, *, leaf: bool) -> bytes:
    """Hex-prefix encoding (Yellow Paper appendix C)."""
    flag = 2 * leaf + len(path) % 2
    return bytes.fromhex(f"{flag:x}{'' if len(path) % 2 else '0'}{path}")


def slot_of(root: bytes, nodes: list[bytes]) -> Case:
    return {"storage_root": root.hex(), "slot": KEY.hex(), "nodes": [node.hex() for node in nodes]}


def good(name: str, parts: list[Any], value: str) -> Case:
    nodes = [rlp.encode(part) for part in parts]
    return {"name": name, "kind": "storage", **slot_of(keccak256(nodes[0]), nodes), "expect": "ok", "value": value}


def crafted_bad(name: str, reason: str, root: bytes, nodes: list[bytes]) -> Case:
    return bad("storage", name, reason, **slot_of(root, nodes))


def bad(kind: str, name: str, reason: str, **inputs: Any) -> Case:
    return {"name": name, "kind": kind, **inputs, "expect": "state proof", "reason": reason}


def independent_header(block: dict[str, Any]) -> bytes:
    """The header's RLP by another encoder than the product's."""
    numbers = {"difficulty", "number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas", "blobGasUsed", "excessBlobGas"}
    order = (
        "parentHash sha3Uncles miner stateRoot transactionsRoot receiptsRoot logsBloom difficulty number gasLimit gasUsed "
        "timestamp extraData mixHash nonce baseFeePerGas withdrawalsRoot blobGasUsed excessBlobGas parentBeaconBlockRoot "
        "requestsHash"
    )
    present = [name for name in order.split() if block.get(name) is not None]
    return rlp.encode([int(block[name], 16) if name in numbers else bytes.fromhex(block[name][2:]) for name in present])


def bump(value: str) -> str:
    return value[:-1] + ("0" if value[-1] != "0" else "1") if len(value) > 2 else "0x01"


def flip(text: str, position: int) -> str:
    octets = bytearray.fromhex(text)
    octets[position % len(octets)] ^= 0x10
    return octets.hex()


if __name__ == "__main__":
    main()
