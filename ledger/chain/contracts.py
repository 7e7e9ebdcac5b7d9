"""The shipped contracts: what is sent to them, what their events and errors say. Built by scripts/build_contracts.

Reading their storage is not here: `ledger.core.contracts` knows the slots, and every read is proven.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError

from ledger.core.contracts import Beacon
from ledger.core.errors import FixInput, LedgerDisagrees, NeedPermission, ScanSealError, TryLater
from ledger.core.typeddata import keccak256

BEACON_SIZE = 40
"""Bytes of a beacon in an event: u64 number (big endian) and hash."""
_STRING_ERROR = bytes.fromhex("08c379a0")
_PERMISSION = ("NotAnchorer", "NotOwner", "AccessControlUnauthorizedAccount")


@dataclass(frozen=True)
class Entry:
    """A function, event or error of an ABI."""

    name: str
    inputs: tuple[tuple[str, str, bool], ...]
    """(name, type, indexed)."""

    @property
    def types(self) -> list[str]:
        return [kind for _, kind, _ in self.inputs]

    @property
    def digest(self) -> bytes:
        """Keccak-256 of the signature: an event's topic; its first four bytes select a function or error."""
        return keccak256(f"{self.name}({','.join(self.types)})".encode())


@dataclass(frozen=True)
class Event:
    """A decoded event and where it stands. `transaction` and `block_hash` have 32 bytes."""

    name: str
    values: Mapping[str, Any]
    block_number: int
    block_hash: bytes
    transaction: bytes


class Artefact:
    """A compiled contract: its ABI, the code to deploy, and the hash of the code that then stands on chain."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.name: str = content["contractName"]
        self.bytecode = bytes.fromhex(content["bytecode"].removeprefix("0x"))
        self.code_hash = keccak256(bytes.fromhex(content["deployedBytecode"].removeprefix("0x")))
        self._entries: dict[tuple[str, str], Entry] = {}
        for part in content["abi"]:
            inputs = tuple((field["name"], field["type"], bool(field.get("indexed"))) for field in part.get("inputs", ()))
            name = part.get("name", part["type"])
            self._entries[part["type"], name] = Entry(name, inputs)

    def deployment(self, *arguments: Any) -> bytes:
        """The creation code with the constructor's arguments."""
        constructor = self._entries.get(("constructor", "constructor"), Entry("constructor", ()))
        return self.bytecode + _encoded(constructor, arguments)

    def call_data(self, function: str, *arguments: Any) -> bytes:
        """The calldata of a function call. Raises FixInput where an argument does not fit its type."""
        entry = self._entries["function", function]
        return entry.digest[:4] + _encoded(entry, arguments)

    def topic(self, event: str) -> bytes:
        return self._entries["event", event].digest

    def event(self, topics: Sequence[bytes], body: bytes, block: tuple[int, bytes], transaction: bytes) -> Event:
        """An event of this contract from a node's log entry. Raises LedgerDisagrees for anything else."""
        entry = next((one for (kind, _), one in self._entries.items() if kind == "event" and topics[:1] == [one.digest]), None)
        if entry is None:
            raise LedgerDisagrees(f"the node shows an event that {self.name} does not have")
        values: dict[str, Any] = {}
        indexed = [(name, kind) for name, kind, is_indexed in entry.inputs if is_indexed]
        plain = [(name, kind) for name, kind, is_indexed in entry.inputs if not is_indexed]
        try:
            for (name, kind), topic in zip(indexed, topics[1:], strict=True):
                (values[name],) = decode([kind], topic)
            values |= zip((name for name, _ in plain), decode([kind for _, kind in plain], body), strict=True)
        except (DecodingError, ValueError) as error:
            raise LedgerDisagrees(f"the node shows a malformed event {entry.name}") from error
        return Event(entry.name, values, block[0], block[1], transaction)

    def refusal(self, reverted: bytes) -> ScanSealError:
        """What the contract's revert data means, as the error that tells the caller what to do next."""
        for (kind, _), entry in self._entries.items():
            if kind == "error" and entry.digest[:4] == reverted[:4]:
                return _refusal(self.name, entry, reverted[4:])
        if reverted[:4] == _STRING_ERROR:
            return FixInput(f"{self.name} refuses the transaction: {_text(reverted[4:])}")
        return FixInput(f"{self.name} refuses the transaction without saying why")


@cache
def artefact(name: str) -> Artefact:
    """A shipped contract: `AnchorLog` or `DeviceRegistry`."""
    place = resources.files("ledger.chain") / "artefacts" / f"{name}.json"
    return Artefact(json.loads(place.read_text(encoding="utf-8")))


def beacons(packed: bytes) -> tuple[Beacon, ...]:
    """The beacons of an `Anchored` event. Raises LedgerDisagrees."""
    if len(packed) % BEACON_SIZE:
        raise LedgerDisagrees(f"an anchor's beacons are {len(packed)} bytes, not whole ones of {BEACON_SIZE}")
    return tuple(
        Beacon(int.from_bytes(packed[start : start + 8], "big"), packed[start + 8 : start + BEACON_SIZE])
        for start in range(0, len(packed), BEACON_SIZE)
    )


def _encoded(entry: Entry, arguments: Sequence[Any]) -> bytes:
    try:
        return encode(entry.types, arguments)
    except (EncodingError, ValueError, TypeError) as error:
        raise FixInput(f"{entry.name}: an argument does not fit {', '.join(entry.types)}") from error


def _refusal(contract: str, entry: Entry, body: bytes) -> ScanSealError:
    try:
        values = decode(entry.types, body)
    except DecodingError:
        values = ()
    named = zip((name for name, _, _ in entry.inputs), values, strict=False)
    shown = ", ".join(f"{name} {value if not isinstance(value, bytes) else '0x' + value.hex()}" for name, value in named)
    message = f"{contract} refuses the transaction: {entry.name} ({shown})"
    if entry.name in _PERMISSION:
        return NeedPermission(f"{message}; use the account that has the right, or have it grant it")
    if entry.name == "NotTheHead":
        return TryLater(f"{message}; another anchor came first: read the head and anchor on top of it")
    return FixInput(message)


def _text(body: bytes) -> str:
    try:
        (text,) = decode(["string"], body)
    except DecodingError:
        return "no reason given"
    return "".join(character if character.isprintable() else " " for character in text[:200])
