"""The evidence bundle (`*.seal.json`): all that a verifier needs beside the image and its trust file. FORMAT.md §7.

The models below are the schema: strict types, no unknown, missing or repeated member, byte strings in unpadded base64url.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError
from pydantic_core import from_json

from ledger.core.errors import EvidenceInvalid, FixInput
from ledger.core.pixels import PROFILES, PixelDigest, PixelHeader, px1_from_tiles
from ledger.core.records import AcquisitionRecord, SignedRecord

SIZE_LIMIT = 1 << 30
"""Bytes of a bundle: more is refused unread."""
DEPTH_LIMIT = 12
FORMAT = "scanseal-bundle-1"


def to_b64(data: bytes) -> str:
    """Base64url without padding (RFC 4648 §5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_b64(text: object) -> bytes:
    """The bytes of unpadded base64url in its one canonical form. Raises ValueError for anything else."""
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise ValueError("not a base64url string")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("not base64url") from error
    if to_b64(data) != text:
        raise ValueError("not canonical base64url")
    return data


def _decoder(size: int | None) -> BeforeValidator:
    """Base64url to bytes, `size` of them."""

    def decode(text: object) -> bytes:
        data = from_b64(text)
        if size is not None and len(data) != size:
            raise ValueError(f"{len(data)} bytes where {size} belong")
        return data

    return BeforeValidator(decode)


_B64 = PlainSerializer(to_b64, return_type=str, when_used="json")
Bytes = Annotated[bytes, _decoder(None), _B64]
Word = Annotated[bytes, _decoder(32), _B64]
Address = Annotated[bytes, _decoder(20), _B64]
Signature = Annotated[bytes, _decoder(64), _B64]
ImageKey = Annotated[bytes, _decoder(16), _B64]
Tokens = Annotated[bytes, _decoder(16), _B64]
UInt64 = Annotated[int, Field(ge=0, lt=1 << 64)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Ledger(_Part):
    """Where the records live. A verifier compares it with its trust file and believes the latter."""

    chain_id: UInt64
    anchor_log: Address
    device_registry: Address
    origin: str
    log_id: Word
    log_key: Word


class RecordPart(_Part):
    """An AcquisitionRecord, member for member."""

    content: Word
    profile: str
    key: Word
    counter: UInt64
    previous: Word
    claimed_time: UInt64
    beacon_number: UInt64
    beacon_hash: Word

    @classmethod
    def of(cls, record: AcquisitionRecord) -> RecordPart:
        return cls(**asdict(record))

    @cached_property
    def value(self) -> AcquisitionRecord:
        return AcquisitionRecord(
            self.content,
            self.profile,
            self.key,
            self.counter,
            self.previous,
            self.claimed_time,
            self.beacon_number,
            self.beacon_hash,
        )


class Tiles(_Part):
    """The sealed tile hashes, frame after frame, so that a verifier can show where pixels were changed (FORMAT.md §1.2).

    They are not salted: who has them can test guesses at a tile's pixels.
    """

    kind: UInt64
    photometric: UInt64
    width: UInt64
    samples_per_pixel: UInt64
    rows: UInt64
    columns: UInt64
    frames: UInt64
    palette: Word
    hashes: Bytes

    @classmethod
    def of(cls, digest: PixelDigest) -> Tiles:
        """The tiles of a px1 digest."""
        if digest.header is None:
            raise FixInput(f"{digest.profile} has no tiles")
        return cls(**asdict(digest.header), hashes=b"".join(tile for frame in digest.tiles for tile in frame))

    def digest(self, profile: str) -> PixelDigest:
        """The px1 digest that the hashes lead to. Raises EvidenceInvalid where they are not those of the header's frames."""
        try:
            header = PixelHeader(**self.model_dump(exclude={"hashes"}))
            count = header.tiles_per_frame
            hashes = split_words(self.hashes, "content")
            if len(hashes) != count * header.frames:
                raise EvidenceInvalid(f"{len(hashes)} tile hashes, not {count * header.frames}", "content")
            frames = [hashes[start : start + count] for start in range(0, len(hashes), count)]
            return px1_from_tiles(header, frames, PROFILES[profile].hash_name)
        except EvidenceInvalid:
            raise
        except (FixInput, KeyError) as error:
            raise EvidenceInvalid("the tile hashes do not fit their header", "content") from error


class Included(_Part):
    """Position in the log and the RFC 9162 inclusion path (32 bytes a node) to the checkpoint of anchor `anchor`."""

    anchor: UInt64
    index: UInt64
    path: Bytes


class Seal(_Part):
    """One sealed image: record, signature, leaves (32 bytes an item, in order) and the key of the salts.

    `decoder` names what made the item DecodedPixels of a lossy original. `image_key` lets its holder test guesses at the
    attributes: a bundle that has it is for those who may see the image.
    """

    record: RecordPart
    signature: Signature
    leaves: Bytes
    image_key: ImageKey
    study: Annotated[UInt64, Field(exclude_if=lambda study: study == 0)] = 0
    find: Tokens
    decoder: str | None = None
    included: Included | None = None
    tiles: Tiles | None = None

    @cached_property
    def signed(self) -> SignedRecord:
        return SignedRecord(self.record.value, self.signature)

    @property
    def tokens(self) -> tuple[bytes, bytes]:
        """The look-up tokens of PixelData and SOPInstanceUID."""
        return self.find[:8], self.find[8:]

    @cached_property
    def leaf_hashes(self) -> tuple[bytes, ...]:
        return split_words(self.leaves, "content")


class BeaconPart(_Part):
    """A recent block that the contract itself looked up when it took the anchor."""

    number: UInt64
    hash: Word


class Anchor(_Part):
    """A signed checkpoint and what the AnchorLog stored with it; `state` says which state proof shows it."""

    checkpoint: str
    old_size: UInt64
    block_number: UInt64
    block_time: UInt64
    beacons: Annotated[tuple[BeaconPart, ...], Field(strict=False)]
    state: UInt64


class State(_Part):
    """A block header (RLP) and the nodes of its state and storage tries that prove anchors and keys (EIP-1186)."""

    header: Bytes
    nodes: Annotated[tuple[Bytes, ...], Field(strict=False)]


class Bundle(_Part):
    """One or many seals with what they share. `headers` are block headers (RLP) of beacons."""

    format: Literal["scanseal-bundle-1"]
    ledger: Ledger
    certificates: Annotated[tuple[Bytes, ...], Field(strict=False)]
    studies: Annotated[tuple[Word, ...], Field(strict=False)]
    seals: Annotated[tuple[Seal, ...], Field(strict=False)]
    anchors: Annotated[tuple[Anchor, ...], Field(strict=False)] = ()
    states: Annotated[tuple[State, ...], Field(strict=False)] = ()
    headers: Annotated[tuple[Bytes, ...], Field(strict=False)] = ()


def split_words(data: bytes, step: str) -> tuple[bytes, ...]:
    """`data` cut into 32-byte words. Raises EvidenceInvalid where a rest is left."""
    if len(data) % 32:
        raise EvidenceInvalid(f"{len(data)} bytes are not whole 32-byte hashes", step)
    return tuple(data[start : start + 32] for start in range(0, len(data), 32))


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member occurs twice")
    return members


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _depth(value: object) -> int:
    """Levels of nesting, counted without recursion."""
    deepest, level = 0, [value]
    while level:
        deepest += 1
        if deepest > DEPTH_LIMIT:
            break
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
    return deepest


def strict_json(data: bytes) -> Mapping[str, Any]:
    """A JSON object: UTF-8, no repeated member, no NaN, bounded depth and size, nothing after it. Raises EvidenceInvalid."""
    if len(data) > SIZE_LIMIT:
        raise EvidenceInvalid(f"{len(data)} bytes: a bundle has at most {SIZE_LIMIT}")
    try:
        # This parser bounds its depth by itself; the next one would follow any depth down the C stack.
        from_json(data, allow_inf_nan=False)
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise EvidenceInvalid("the bundle is not strict JSON in UTF-8, or nested too deeply: ask for a fresh copy") from error
    if not isinstance(value, dict):
        raise EvidenceInvalid("the bundle is not a JSON object")
    if _depth(value) > DEPTH_LIMIT:
        raise EvidenceInvalid("the bundle is nested too deeply")
    return value


def parse(data: bytes) -> Bundle:
    """A bundle from the bytes of its file. Raises EvidenceInvalid (step evidence) naming the member that is wrong.

    Proves nothing by itself: `ledger.core.verify` does the rest.
    """
    value = strict_json(data)
    try:
        bundle = Bundle.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise EvidenceInvalid(f"the bundle's {place or 'top level'}: {first['msg']}") from error
    for number, seal in enumerate(bundle.seals):
        if seal.study >= len(bundle.studies):
            raise EvidenceInvalid(f"the bundle's seals.{number}.study: there are {len(bundle.studies)} studies")
        if seal.included is not None and seal.included.anchor >= len(bundle.anchors):
            raise EvidenceInvalid(f"the bundle's seals.{number}.included.anchor: there are {len(bundle.anchors)} anchors")
    for number, anchor in enumerate(bundle.anchors):
        if anchor.state >= len(bundle.states):
            raise EvidenceInvalid(f"the bundle's anchors.{number}.state: there are {len(bundle.states)} states")
    return bundle


def write(bundle: Bundle) -> bytes:
    """The bundle as compact JSON, the same bytes for the same bundle, with a newline at its end."""
    return bundle.model_dump_json(exclude_none=True).encode() + b"\n"
