"""What the contracts store, and where: commitments, key words and storage slots. FORMAT.md §5.

The slot numbers are those of the shipped artefacts; a test holds them together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from ledger.core.records import Role
from ledger.core.typeddata import keccak256

ANCHORS_SLOT = 1
KEYS_SLOT = 1
SEALS_EVERYTHING_SLOT = 2


@dataclass(frozen=True)
class Beacon:
    """A block that existed before something was signed: nobody can know `hash` (32 bytes) earlier."""

    number: int
    hash: bytes


@dataclass(frozen=True)
class KeyState:
    """What the DeviceRegistry says of a key. Times are seconds since 1970, 0 for never."""

    certificate: bytes
    enrolled_at: int
    retired_at: int
    compromised_since: int
    roles: Role

    @classmethod
    def from_words(cls, certificate: int, packed: int) -> KeyState:
        """From the two storage words of `DeviceRegistry.keys[key]`."""
        mask = (1 << 48) - 1
        return cls(
            certificate.to_bytes(32, "big"),
            packed & mask,
            packed >> 48 & mask,
            packed >> 96 & mask,
            Role(packed >> 144 & 0xFF),
        )


def log_id(owner: bytes, log_key: bytes) -> bytes:
    """The id of the log that `owner` (20 bytes) opened for an Ed25519 public key (32 bytes)."""
    return keccak256(owner.rjust(32, b"\0") + hashlib.sha256(log_key).digest())


def anchor_commitment(root: bytes, old_size: int, block_number: int, block_time: int, beacons: Sequence[Beacon]) -> bytes:
    """What `AnchorLog.anchors[log][newSize]` holds."""
    packed = b"".join(beacon.number.to_bytes(8, "big") + beacon.hash for beacon in beacons)
    words = (root, *(number.to_bytes(32, "big") for number in (old_size, block_number, block_time)), keccak256(packed))
    return keccak256(b"".join(words))


def mapping_slot(key: bytes, slot: bytes) -> bytes:
    """The storage slot of `mapping[key]` (Solidity storage layout); both 32 bytes."""
    return keccak256(key + slot)


def anchor_slot(log: bytes, size: int) -> bytes:
    return mapping_slot(size.to_bytes(32, "big"), mapping_slot(log, ANCHORS_SLOT.to_bytes(32, "big")))


def key_slots(key: bytes) -> tuple[bytes, bytes]:
    """The slots of a key's two words."""
    first = mapping_slot(key, KEYS_SLOT.to_bytes(32, "big"))
    return first, (int.from_bytes(first, "big") + 1).to_bytes(32, "big")


def device_slot(device: bytes) -> bytes:
    return mapping_slot(device, SEALS_EVERYTHING_SLOT.to_bytes(32, "big"))
