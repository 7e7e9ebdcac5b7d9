"""The trust file (TOML): what an auditor believes without asking anyone, and `Facts`, what the chain was asked today.

FORMAT.md §8. Everything that a verdict rests on starts here: nothing in a bundle can add to it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from ledger.core import certificates
from ledger.core.certificates import Certificate
from ledger.core.contracts import KeyState
from ledger.core.errors import EvidenceInvalid, FixInput
from ledger.core.typeddata import Domain

FORMAT = "scanseal-trust-1"


_HEX_DIGITS = re.compile(r"[0-9A-Fa-f]*")


def _decoder(size: int) -> BeforeValidator:
    """0x and hex digits to `size` bytes."""

    def decode(text: object) -> bytes:
        if isinstance(text, bytes) and len(text) == size:
            return text
        if not isinstance(text, str) or not text.startswith("0x") or len(text) != 2 + 2 * size:
            raise ValueError(f"0x and {2 * size} hex digits belong here")
        if not _HEX_DIGITS.fullmatch(text, 2):
            raise ValueError("not hex digits")
        return bytes.fromhex(text[2:])

    return BeforeValidator(decode)


_HEX = PlainSerializer(lambda data: "0x" + data.hex(), return_type=str, when_used="always")
Word = Annotated[bytes, _decoder(32), _HEX]
Address = Annotated[bytes, _decoder(20), _HEX]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Contract(_Part):
    """A deployed contract and the keccak256 of its code."""

    address: Address
    code_hash: Word


class TrustedLog(_Part):
    """A log whose checkpoints are accepted; `key` is its Ed25519 public key."""

    origin: str
    log_id: Word
    key: Word


class Fallen(_Part):
    """An algorithm that can be broken since a time (seconds since 1970)."""

    algorithm: Literal["sha256", "secp256k1", "p256"]
    since: Annotated[int, Field(gt=0)]


class Authority(_Part):
    """A site's certificate authority, accepted as an issuer of device certificates (PEM)."""

    name: str
    certificate: str


class Block(_Part):
    """A block known to be final on this chain."""

    number: Annotated[int, Field(ge=0)]
    hash: Word


class KeyNotice(_Part):
    """News about a key that may be younger than a bundle."""

    key: Word
    retired_at: Annotated[int, Field(ge=0)] = 0
    compromised_since: Annotated[int, Field(ge=0)] = 0


class DeviceNotice(_Part):
    """A device that seals everything it makes since a time (seconds since 1970)."""

    device: Word
    name: str
    seals_everything_since: Annotated[int, Field(gt=0)]


class Policy(_Part):
    """How strict a verdict is. `finality`: the chain's word for a block that counts; `clock_tolerance_s`: a device's clock;
    `approvals`: persons who must approve a manifest."""

    finality: Literal["included", "safe", "final"] = "final"
    clock_tolerance_s: Annotated[int, Field(ge=0)] = 300
    approvals: Annotated[int, Field(ge=0)] = 0


class Trust(_Part):
    """A whole trust file."""

    format: Literal["scanseal-trust-1"]
    chain_id: Annotated[int, Field(gt=0)]
    genesis_hash: Word
    rpc: Annotated[tuple[str, ...], Field(strict=False)] = ()
    anchor_log: Contract
    device_registry: Contract
    logs: Annotated[tuple[TrustedLog, ...], Field(strict=False)]
    authorities: Annotated[tuple[Authority, ...], Field(strict=False)]
    blocks: Annotated[tuple[Block, ...], Field(strict=False)] = ()
    keys: Annotated[tuple[KeyNotice, ...], Field(strict=False)] = ()
    devices: Annotated[tuple[DeviceNotice, ...], Field(strict=False)] = ()
    fallen: Annotated[tuple[Fallen, ...], Field(strict=False)] = ()
    policy: Policy = Policy()

    def fell_at(self, algorithm: str) -> int | None:
        """Since when an algorithm can be broken; None for one that stands."""
        return min((one.since for one in self.fallen if one.algorithm == algorithm), default=None)

    def has_fallen(self, algorithm: str, time: int | None) -> bool:
        """Whether an algorithm could be broken at a time; where the time is not known, whether it ever can."""
        fell = self.fell_at(algorithm)
        return fell is not None and (time is None or time >= fell)

    @property
    def domain(self) -> Domain:
        return Domain(self.chain_id, self.anchor_log.address)

    def issuers(self) -> tuple[tuple[str, Certificate], ...]:
        """The accepted authorities: (name, certificate)."""
        return tuple((authority.name, _authority(authority)) for authority in self.authorities)


def _authority(authority: Authority) -> Certificate:
    try:
        der = x509.load_pem_x509_certificate(authority.certificate.encode()).public_bytes(Encoding.DER)
    except (EvidenceInvalid, *certificates.MALFORMED) as error:
        raise FixInput(f"trust file: the certificate of authority {authority.name!r} is not PEM") from error
    parsed = certificates.parse(der)
    if not parsed.is_issued_by(parsed):
        raise FixInput(
            f"trust file: the certificate of authority {authority.name!r} is not a self-signed certificate authority"
        )
    return parsed


def parse(text: str) -> Trust:
    """A trust file. Raises FixInput naming the entry that is wrong."""
    try:
        trust = Trust.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise FixInput(f"trust file: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise FixInput(f"trust file: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    trust.issuers()
    hashes: dict[int, bytes] = {}
    for block in trust.blocks:
        if hashes.setdefault(block.number, block.hash) != block.hash:
            raise FixInput(f"trust file: two hashes for block {block.number}")
    return trust


@dataclass(frozen=True)
class Facts:
    """What the chain was asked at verification, by someone else; empty offline. Every RPC that was named agreed on it.

    `blocks`: number -> canonical hash; `settled`: the highest block number that has the policy's finality;
    `keys`: key id -> what the registry says now; `devices`: device id -> sealsEverythingSince, 0 for a device that does not.
    """

    blocks: Mapping[int, bytes] = field(default_factory=dict)
    settled: int = -1
    keys: Mapping[bytes, KeyState] = field(default_factory=dict)
    devices: Mapping[bytes, int] = field(default_factory=dict)
