"""EIP-712 typed structs of flat fields: `bytes32`, `bytes32[]`, `string`, `uint64`. FORMAT.md §3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from Crypto.Hash import keccak as _keccak

from ledger.core.errors import FixInput

Field = tuple[str, str]
"""(EIP-712 type, name)."""

Value = bytes | str | int | tuple[bytes, ...]


def keccak256(data: bytes) -> bytes:
    """The 32-byte Keccak-256 of Ethereum (not FIPS 202 SHA3-256)."""
    return _keccak.new(digest_bits=256, data=data).digest()


@dataclass(frozen=True)
class Domain:
    """The EIP-712 domain of every ScanSeal record: it ties a record to one chain and one AnchorLog.

    `verifying_contract` has 20 bytes. The same record has another id in every other domain, so it cannot be replayed there.
    """

    chain_id: int
    verifying_contract: bytes

    @property
    def separator(self) -> bytes:
        return _separator(self.chain_id, self.verifying_contract)


@cache
def _separator(chain_id: int, verifying_contract: bytes) -> bytes:
    if len(verifying_contract) != 20:
        raise FixInput(f"a contract address has 20 bytes, not {len(verifying_contract)}")
    words = (
        keccak256(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
        keccak256(b"ScanSeal"),
        keccak256(b"1"),
        chain_id.to_bytes(32, "big"),
        verifying_contract.rjust(32, b"\0"),
    )
    return keccak256(b"".join(words))


@cache
def type_hash(name: str, fields: tuple[Field, ...]) -> bytes:
    """keccak256 of `Name(type field,...)`."""
    return keccak256(f"{name}({','.join(f'{kind} {field}' for kind, field in fields)})".encode())


@cache
def _text_word(text: str) -> bytes:
    return keccak256(text.encode())


def _word(kind: str, name: str, value: Value) -> bytes:
    if kind == "bytes32" and isinstance(value, bytes) and len(value) == 32:
        return value
    if kind == "string" and isinstance(value, str):
        return _text_word(value)
    if kind == "uint64" and isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64:
        return value.to_bytes(32, "big")
    if kind == "bytes32[]" and isinstance(value, tuple) and all(isinstance(one, bytes) and len(one) == 32 for one in value):
        return keccak256(b"".join(value))
    raise FixInput(f"{name} is not a {kind}")


def encode_data(name: str, fields: tuple[Field, ...], values: Sequence[Value]) -> bytes:
    """EIP-712 `encodeData` with the type hash in front: 32 bytes a word. Raises FixInput where a value does not fit its
    type."""
    words = [_word(kind, field, value) for (kind, field), value in zip(fields, values, strict=True)]
    return type_hash(name, fields) + b"".join(words)


def digest(domain: Domain, encoded: bytes) -> bytes:
    """The EIP-712 digest (what is signed) of a struct given as its `encode_data`."""
    return keccak256(b"\x19\x01" + domain.separator + keccak256(encoded))
