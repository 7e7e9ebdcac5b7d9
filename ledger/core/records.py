"""Signed records: what a key says about images, and the log entry that carries it. FORMAT.md §3.

Every record begins with the same eight members, so the key, the counter and the beacon lie at the same place of every entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag
from types import MappingProxyType
from typing import Any, ClassVar, Final

from ledger.core import typeddata
from ledger.core.errors import EvidenceInvalid
from ledger.core.typeddata import Domain, Field, Value

SIGNATURE_SIZE = 64
HEAD_SIZE: Final = 288
"""Bytes of an entry that are laid out alike in every type: the type hash and the eight common members."""


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
class Record:
    """The members that every record has. `content`, `key`, `previous` and `beacon_hash` have 32 bytes; `claimed_time` is the
    signer's clock in seconds since 1970: it does not prove when a record was signed, the beacon and the anchor do."""

    content: bytes
    profile: str
    key: bytes
    counter: int
    previous: bytes
    claimed_time: int
    beacon_number: int
    beacon_hash: bytes

    TYPE: ClassVar[str]
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
    ROLES: ClassVar[Role]

    def _values(self) -> tuple[Value, ...]:
        return (
            self.content,
            self.profile,
            self.key,
            self.counter,
            self.previous,
            self.claimed_time,
            self.beacon_number,
            self.beacon_hash,
        )

    @property
    def own(self) -> Mapping[str, Any]:
        """The members that only this type has, by name."""
        return {}

    @property
    def roles(self) -> Role:
        """The roles of which the record's key needs one."""
        return self.ROLES

    def encoded(self) -> bytes:
        """EIP-712 `encodeData`, 32 bytes a word. Raises FixInput where a member does not fit its type."""
        return typeddata.encode_data(self.TYPE, self.FIELDS, self._values())

    def id(self, domain: Domain) -> bytes:
        """The record id: the EIP-712 digest that the key signs."""
        return typeddata.digest(domain, self.encoded())

    @classmethod
    def from_entry(cls, entry: bytes, profile: str, own: Mapping[str, Any] = MappingProxyType({})) -> Record:
        """From a log entry and what it has only as hashes. Raises EvidenceInvalid where it is no such record."""
        words = [entry[start : start + 32] for start in range(32, HEAD_SIZE, 32)]
        number = [int.from_bytes(word, "big") for word in words]
        head = (words[0], profile, words[2], number[3], words[4], number[5], number[6], words[7])
        record = cls(*head, **own)
        if len(entry) < HEAD_SIZE or not entry.startswith(record.encoded()):
            raise EvidenceInvalid(f"the log entry is not this {cls.TYPE}", "record")
        return record


@dataclass(frozen=True)
class AcquisitionRecord(Record):
    """A device's statement that it made the image whose pixels and attributes `content` commits to."""

    TYPE: ClassVar[str] = "AcquisitionRecord"
    ROLES: ClassVar[Role] = Role.ACQUIRE


@dataclass(frozen=True)
class SyntheticRecord(Record):
    """A maker's statement that the image was generated, by what: legitimate training data, never a patient's image."""

    generator: str

    TYPE: ClassVar[str] = "SyntheticRecord"
    FIELDS: ClassVar[tuple[Field, ...]] = (*Record.FIELDS, ("string", "generator"))
    ROLES: ClassVar[Role] = Role.GENERATE

    def _values(self) -> tuple[Value, ...]:
        return (*super()._values(), self.generator)

    @property
    def own(self) -> Mapping[str, Any]:
        return {"generator": self.generator}


@dataclass(frozen=True)
class GatewayRecord(Record):
    """A gateway's statement that it held the image, and that no record says where it comes from: custody without an origin.
    It proves since when the image is what it is, and nothing of who made it."""

    TYPE: ClassVar[str] = "GatewayRecord"
    ROLES: ClassVar[Role] = Role.HOLD


CUSTODY_ROLES: Final[Mapping[str, Role]] = MappingProxyType(
    {
        "received": Role.HOLD,
        "transferred": Role.HOLD,
        "stored": Role.HOLD,
        "exported": Role.HOLD,
        "read": Role.READ,
        "transcoded": Role.TRANSFORM,
        "de-identified": Role.TRANSFORM,
        "derived": Role.TRANSFORM,
    }
)
"""The actions of a CustodyRecord, and the role that each needs."""


@dataclass(frozen=True)
class CustodyRecord(Record):
    """A holder's statement of what was done with an image: `parents` are record ids, `statement` is JSON (`custody`)."""

    parents: tuple[bytes, ...]
    action: str
    statement: str

    TYPE: ClassVar[str] = "CustodyRecord"
    FIELDS: ClassVar[tuple[Field, ...]] = (
        *Record.FIELDS,
        ("bytes32[]", "parents"),
        ("string", "action"),
        ("string", "statement"),
    )

    def _values(self) -> tuple[Value, ...]:
        return (*super()._values(), self.parents, self.action, self.statement)

    @property
    def own(self) -> Mapping[str, Any]:
        return {"parents": self.parents, "action": self.action, "statement": self.statement}

    @property
    def roles(self) -> Role:
        """Raises EvidenceInvalid for an action that FORMAT.md §3.1 does not have."""
        if self.action not in CUSTODY_ROLES:
            raise EvidenceInvalid("the custody record names an action that this version does not know", "custody")
        return CUSTODY_ROLES[self.action]


@dataclass(frozen=True)
class ManifestRecord(Record):
    """A closed list: `content` is the root over the manifest's lines, `count` its entries (`manifest`)."""

    kind: str
    count: int

    TYPE: ClassVar[str] = "ManifestRecord"
    FIELDS: ClassVar[tuple[Field, ...]] = (*Record.FIELDS, ("string", "kind"), ("uint64", "count"))
    ROLES: ClassVar[Role] = Role.ACQUIRE | Role.HOLD | Role.TRANSFORM

    def _values(self) -> tuple[Value, ...]:
        return (*super()._values(), self.kind, self.count)

    @property
    def own(self) -> Mapping[str, Any]:
        return {"kind": self.kind, "count": self.count}


@dataclass(frozen=True)
class Approval(Record):
    """A person's electronic signature on the record whose id is `content`: printed name, meaning, and the claimed time."""

    name: str
    meaning: str

    TYPE: ClassVar[str] = "Approval"
    FIELDS: ClassVar[tuple[Field, ...]] = (*Record.FIELDS, ("string", "name"), ("string", "meaning"))
    ROLES: ClassVar[Role] = Role.APPROVE

    def _values(self) -> tuple[Value, ...]:
        return (*super()._values(), self.name, self.meaning)

    @property
    def own(self) -> Mapping[str, Any]:
        return {"name": self.name, "meaning": self.meaning}


TYPES: Final[Mapping[str, type[Record]]] = MappingProxyType(
    {one.TYPE: one for one in (AcquisitionRecord, SyntheticRecord, GatewayRecord, CustodyRecord, ManifestRecord, Approval)}
)
IMAGE_TYPES: Final = (AcquisitionRecord, SyntheticRecord, GatewayRecord, CustodyRecord)
"""The records whose content is an image's."""


@dataclass(frozen=True)
class SignedRecord:
    """A record with the 64-byte signature `r || s` over its id."""

    record: Record
    signature: bytes

    def entry(self) -> bytes:
        """The log entry: `encodeData || signature`."""
        if len(self.signature) != SIGNATURE_SIZE:
            raise EvidenceInvalid(f"a signature has {SIGNATURE_SIZE} bytes, not {len(self.signature)}", "signature")
        return self.record.encoded() + self.signature
