"""Signed records: what a key says about an image, and the log entry that carries it. FORMAT.md §3."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import ClassVar

from ledger.core import typeddata
from ledger.core.errors import EvidenceInvalid
from ledger.core.typeddata import Domain, Field

SIGNATURE_SIZE = 64


class Role(IntFlag):
    """What an enrolled key may sign. A gateway that got pixels over a network has HOLD, never ACQUIRE."""

    ACQUIRE = 1
    TRANSFORM = 2
    HOLD = 4
    READ = 8
    APPROVE = 16
    GENERATE = 32

    @property
    def words(self) -> str:
        """The roles in words, for people: `acquire, transform`."""
        return ", ".join(str(role.name).lower() for role in self) or "none"


@dataclass(frozen=True)
class AcquisitionRecord:
    """A device's statement that it made the image whose pixels and attributes `content` commits to.

    `content`, `key`, `previous` and `beacon_hash` have 32 bytes; `claimed_time` is the device's clock in seconds since 1970.
    It does not prove when it was signed: the beacon and the anchor do (FORMAT.md §8).
    """

    content: bytes
    profile: str
    key: bytes
    counter: int
    previous: bytes
    claimed_time: int
    beacon_number: int
    beacon_hash: bytes

    TYPE: ClassVar[str] = "AcquisitionRecord"
    FIELDS: ClassVar[tuple[Field, ...]] = (
        ("bytes32", "content"),
        ("string", "profile"),
        ("bytes32", "key"),
        ("uint64", "counter"),
        ("bytes32", "previous"),
        ("uint64", "claimedTime"),
        ("uint64", "beaconNumber"),
        ("bytes32", "beaconHash"),
    )
    ROLE: ClassVar[Role] = Role.ACQUIRE

    def encoded(self) -> bytes:
        """EIP-712 `encodeData`, 288 bytes. Raises FixInput where a field does not fit its type."""
        values = (
            self.content,
            self.profile,
            self.key,
            self.counter,
            self.previous,
            self.claimed_time,
            self.beacon_number,
            self.beacon_hash,
        )
        return typeddata.encode_data(self.TYPE, self.FIELDS, values)

    @classmethod
    def from_entry(cls, entry: bytes, profile: str) -> AcquisitionRecord:
        """From the first 288 bytes of a log entry. Raises EvidenceInvalid where it is no such record of this profile."""
        words = [entry[start : start + 32] for start in range(32, 288, 32)]
        number = [int.from_bytes(word, "big") for word in words]
        record = cls(words[0], profile, words[2], number[3], words[4], number[5], number[6], words[7])
        if len(entry) < 288 or record.encoded() != entry[:288]:
            raise EvidenceInvalid("the log entry is not an AcquisitionRecord of this profile", "record")
        return record

    def id(self, domain: Domain) -> bytes:
        """The record id: the EIP-712 digest that the key signs."""
        return typeddata.digest(domain, self.encoded())


@dataclass(frozen=True)
class SignedRecord:
    """A record with the 64-byte signature `r || s` over its id."""

    record: AcquisitionRecord
    signature: bytes

    def entry(self) -> bytes:
        """The log entry: `encodeData || signature`."""
        if len(self.signature) != SIGNATURE_SIZE:
            raise EvidenceInvalid(f"a signature has {SIGNATURE_SIZE} bytes, not {len(self.signature)}", "signature")
        return self.record.encoded() + self.signature
