"""Reading a contract's storage out of a block header and trie nodes, without asking anyone (EIP-1186, Yellow Paper appendix D).

A verifier has a block header it believes in (by hash) and a set of trie nodes from an untrusted source. Every node is found by
its Keccak-256, so what is read is what the block's state had, or nothing. A proof of absence reads as zero.

    header = parse_header(rlp)                                        # its hash is recomputed from the bytes
    account = verify_account(header.state_root, address, nodes)       # 20 bytes; nonce, balance, storage root, code hash
    word = verify_storage(account.storage_root, slot, nodes)          # 32 bytes -> the word as an integer

`nodes` is either a mapping hash -> node (a pool shared by many proofs; what is not needed is ignored) or a sequence, the
`accountProof` or `proof` list of `eth_getProof`, in which every node must be needed. `ledger.core.contracts` knows the slots.
Nothing here proves that a block is canonical.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from ledger.core.errors import EvidenceInvalid
from ledger.core.typeddata import keccak256

STEP = "state proof"
EMPTY_ROOT = keccak256(b"\x80")
"""Root of a trie without entries."""
EMPTY_CODE = keccak256(b"")
"""Code hash of an account without code."""
HEADER_LIMIT = 1 << 16
"""Bytes of a header: private chains put their validators' signatures into `extraData`."""

Nodes = Mapping[bytes, bytes] | Sequence[bytes]

_REQUIRED = (
    ("parentHash", 32),
    ("sha3Uncles", 32),
    ("miner", 20),
    ("stateRoot", 32),
    ("transactionsRoot", 32),
    ("receiptsRoot", 32),
    ("logsBloom", 256),
    ("difficulty", 0),
    ("number", 0),
    ("gasLimit", 0),
    ("gasUsed", 0),
    ("timestamp", 0),
    ("extraData", None),
    ("mixHash", 32),
    ("nonce", 8),
)
"""(JSON name, bytes; 0 for an integer, None for any length) in the header's order, Yellow Paper §4.4."""
_OPTIONAL = (
    ("baseFeePerGas", 0),  # EIP-1559, London
    ("withdrawalsRoot", 32),  # EIP-4895, Shanghai
    ("blobGasUsed", 0),  # EIP-4844, Cancun
    ("excessBlobGas", 0),
    ("parentBeaconBlockRoot", 32),  # EIP-4788
    ("requestsHash", 32),  # EIP-7685, Prague
)


@dataclass(frozen=True)
class Header:
    """A block header; `timestamp` in seconds since 1970, hashes of 32 bytes. `hash` is that of the bytes it was parsed from."""

    hash: bytes
    number: int
    timestamp: int
    parent_hash: bytes
    state_root: bytes


@dataclass(frozen=True)
class Account:
    """An account in a state trie; one that does not exist has `code_hash` EMPTY_CODE and zero everywhere else."""

    nonce: int
    balance: int
    storage_root: bytes
    code_hash: bytes


def parse_header(header: bytes) -> Header:
    """A block header from its RLP, of any fork: fields that later forks append are hashed and otherwise not looked at.

    Raises EvidenceInvalid where it is no strict RLP of a header.
    """
    if len(header) > HEADER_LIMIT:
        _invalid(f"a block header of {len(header)} bytes")
    items = _list_items(header, "block header")
    if len(items) < len(_REQUIRED):
        _invalid(f"a block header has at least {len(_REQUIRED)} fields, not {len(items)}")
    fields: dict[str, bytes] = {}
    for (name, size), (is_list, value) in zip(_REQUIRED, items, strict=False):
        if is_list or (size and len(value) != size):
            _invalid(f"the block header's {name} is not {size or 'a string of'} bytes")
        fields[name] = value
    return Header(
        keccak256(header),
        _integer(fields["number"], 8, "block number"),
        _integer(fields["timestamp"], 8, "block timestamp"),
        fields["parentHash"],
        fields["stateRoot"],
    )


def header_rlp(block: Mapping[str, object]) -> bytes:
    """The header's RLP from what `eth_getBlockByNumber` answers.

    Raises EvidenceInvalid where the fields do not hash to its `hash`, so a node cannot show one block and name another.
    Covers the forks from Frontier to Osaka.
    """
    fields = [*_REQUIRED, *(field for field in _OPTIONAL if block.get(field[0]) is not None)]
    encoded = _encode_list([_field(block.get(name), name, size) for name, size in fields])
    claimed = _field(block.get("hash"), "hash", 32)
    if keccak256(encoded) != claimed:
        _invalid(
            f"the fields of block {block.get('number')!r} do not hash to 0x{claimed.hex()}: a false block, "
            "or a chain that hashes its headers in another way than Ethereum (QBFT, IBFT: not supported)"
        )
    return encoded


def verify_account(state_root: bytes, address: bytes, nodes: Nodes) -> Account:
    """The account at `address` (20 bytes) in the state with this root. Raises EvidenceInvalid (step state proof)."""
    if len(address) != 20:
        _invalid(f"an address has 20 bytes, not {len(address)}")
    value = _lookup(state_root, keccak256(address), nodes)
    if value is None:
        return Account(0, 0, EMPTY_ROOT, EMPTY_CODE)
    items = _list_items(value, "account")
    if len(items) != 4 or any(is_list for is_list, _ in items):
        _invalid("an account has four fields")
    (_, nonce), (_, balance), (_, storage_root), (_, code_hash) = items
    if len(storage_root) != 32 or len(code_hash) != 32:
        _invalid("an account's storage root and code hash have 32 bytes")
    return Account(_integer(nonce, 8, "nonce"), _integer(balance, 32, "balance"), storage_root, code_hash)


def verify_storage(storage_root: bytes, slot: bytes, nodes: Nodes) -> int:
    """The word in `slot` (32 bytes) of the storage with this root; 0 is a proof that it was never set, or cleared.

    Raises EvidenceInvalid (step state proof).
    """
    if len(slot) != 32:
        _invalid(f"a storage slot has 32 bytes, not {len(slot)}")
    value = _lookup(storage_root, keccak256(slot), nodes)
    if value is None:
        return 0
    is_list, payload, end = _item(value, 0)
    if is_list or end != len(value):
        _invalid("a storage value is one integer")
    word = _integer(payload, 32, "storage value")
    if word == 0:
        _invalid("a storage trie holds no zeros")
    return word


class _Source:
    """Trie nodes by hash; remembers which of a sequence were used."""

    def __init__(self, nodes: Nodes) -> None:
        self._is_pool = isinstance(nodes, Mapping)
        if isinstance(nodes, Mapping):
            self._nodes = nodes
        else:
            self._nodes = {keccak256(node): node for node in nodes}
            if len(self._nodes) != len(nodes):
                _invalid("a trie node occurs twice in one proof")
        self._used: set[bytes] = set()

    def node(self, digest: bytes) -> bytes:
        node = self._nodes.get(digest)
        if node is None:
            _invalid(f"the trie node 0x{digest.hex()} is missing")
        if self._is_pool and keccak256(node) != digest:
            _invalid(f"a trie node does not hash to 0x{digest.hex()}")
        self._used.add(digest)
        return node

    def close(self) -> None:
        unused = 0 if self._is_pool else len(self._nodes) - len(self._used)
        if unused:
            _invalid(f"{unused} trie nodes of the proof belong to nothing that is proven")


def _lookup(root: bytes, key: bytes, nodes: Nodes) -> bytes | None:
    """The value at `key` (32 bytes, already hashed) in the trie with this root, None where it provably has none."""
    source = _Source(nodes)
    value = None
    if root != EMPTY_ROOT:
        value = _walk(source, source.node(root), key.hex())
    elif not isinstance(nodes, Mapping) and list(nodes) == [b"\x80"]:
        return None  # how some nodes write the empty trie
    source.close()
    return value


def _walk(source: _Source, node: bytes, path: str) -> bytes | None:
    """Down from `node`; `path` is what is left of the key, a nibble a character."""
    while True:
        items = _list_items(node, "trie node")
        if len(items) == 17:
            child = _branch_child(items, path)
            path = path[1:]
        elif len(items) == 2:
            is_leaf, own = _hex_prefix(items[0])
            if is_leaf:
                return _leaf_value(items[1], own, path)
            if not own or len(own) >= len(path):
                _invalid("an extension node's path does not lead into the trie")
            child = items[1]
            _check_reference(child, may_be_empty=False)
            if not path.startswith(own):
                return None
            path = path[len(own) :]
        else:
            _invalid(f"a trie node has 2 or 17 items, not {len(items)}")
        is_list, reference = child
        if not reference:
            return None
        node = reference if is_list else source.node(reference)


def _branch_child(items: list[tuple[bool, bytes]], path: str) -> tuple[bool, bytes]:
    if not path:
        _invalid("a branch node lies deeper than the key")
    for child in items[:16]:
        _check_reference(child, may_be_empty=True)
    if items[16] != (False, b""):
        _invalid("a branch node holds a value, though all keys have 32 bytes")
    return items[int(path[0], 16)]


def _leaf_value(item: tuple[bool, bytes], own: str, path: str) -> bytes | None:
    is_list, value = item
    if is_list or not value:
        _invalid("a leaf node's value is not a string")
    if len(own) != len(path):
        _invalid("a leaf node's path does not end where the key does")
    return value if own == path else None


def _check_reference(child: tuple[bool, bytes], *, may_be_empty: bool) -> None:
    """A child is the hash of a node, or the node itself where its RLP is shorter than a hash."""
    is_list, reference = child
    fits = len(reference) < 32 if is_list else len(reference) == 32 or (may_be_empty and not reference)
    if not fits:
        _invalid(f"a trie node refers to a child with {len(reference)} bytes")


def _hex_prefix(item: tuple[bool, bytes]) -> tuple[bool, str]:
    """(is it a leaf, nibbles) of a compact path (Yellow Paper appendix C)."""
    is_list, compact = item
    nibbles = "" if is_list else compact.hex()
    if not nibbles or nibbles[0] not in "0123":
        _invalid("a trie node's path is not hex-prefix encoded")
    flag = int(nibbles[0])
    if flag & 1:
        return flag >= 2, nibbles[1:]
    if nibbles[1] != "0":
        _invalid("a trie node's path has a nonzero pad nibble")
    return flag >= 2, nibbles[2:]


def _item(data: bytes, start: int) -> tuple[bool, bytes, int]:
    """(is it a list, a string's payload or a list's encoding, end) of the RLP item at `start`; strict, never recursive."""
    if start >= len(data):
        _invalid("RLP ends too early")
    first = data[start]
    if first < 0x80:
        return False, data[start : start + 1], start + 1
    is_list = first >= 0xC0
    short = first - (0xC0 if is_list else 0x80)
    begin, size = start + 1, short
    if short > 55:
        begin += short - 55
        length = data[start + 1 : begin]
        size = int.from_bytes(length, "big")
        if len(length) != short - 55 or length[0] == 0 or size < 56:
            _invalid("RLP with a length that is not in its shortest form")
    end = begin + size
    if end > len(data):
        _invalid("RLP ends too early")
    if not is_list and size == 1 and data[begin] < 0x80:
        _invalid("RLP with a byte that is not in its shortest form")
    return is_list, data[start if is_list else begin : end], end


def _list_items(data: bytes, what: str) -> list[tuple[bool, bytes]]:
    """(is it a list, payload or whole encoding) of each item of one RLP list that is all of `data`."""
    is_list, _, end = _item(data, 0)
    if not is_list or end != len(data):
        _invalid(f"a {what} is not one RLP list")
    position = 1 if data[0] <= 0xF7 else data[0] - 0xF6
    items = []
    while position < end:
        inner_list, payload, position = _item(data, position)
        items.append((inner_list, payload))
    return items


def _integer(payload: bytes, limit: int, what: str) -> int:
    if payload[:1] == b"\0" or len(payload) > limit:
        _invalid(f"the {what} is no integer of up to {limit} bytes without leading zeros")
    return int.from_bytes(payload, "big")


def _field(value: object, name: str, size: int | None) -> bytes:
    """A header field's bytes from its JSON form."""
    try:
        if not isinstance(value, str) or not value.startswith("0x"):
            raise ValueError
        if size == 0:
            number = int(value[2:], 16)
            return number.to_bytes((number.bit_length() + 7) // 8, "big")
        octets = bytes.fromhex(value[2:])
    except ValueError:
        _invalid(f"the block's {name} is missing or not hex")
    if size is not None and len(octets) != size:
        _invalid(f"the block's {name} has {len(octets)} bytes, not {size}")
    return octets


def _encode_list(values: Sequence[bytes]) -> bytes:
    payload = b"".join(value if len(value) == 1 and value[0] < 0x80 else _prefix(0x80, len(value)) + value for value in values)
    return _prefix(0xC0, len(payload)) + payload


def _prefix(base: int, size: int) -> bytes:
    if size < 56:
        return bytes([base + size])
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([base + 55 + len(length)]) + length


def _invalid(message: str) -> NoReturn:
    raise EvidenceInvalid(message, STEP)
