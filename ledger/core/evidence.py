"""The evidence bundle (`*.seal.json`): all that a verifier needs beside the image and its trust file. FORMAT.md §7.

The models below are the schema: strict types, no unknown, missing or repeated member, byte strings in unpadded base64url.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cached_property
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from ledger.core.content import Salts
from ledger.core.custody import Statement
from ledger.core.errors import EvidenceInvalid, FixInput
from ledger.core.pixels import PROFILES, PixelDigest, PixelHeader, px1_from_tiles
from ledger.core.records import IMAGE_TYPES, TYPES, AcquisitionRecord, CustodyRecord, Record, SignedRecord
from ledger.core.strict import from_b64, strict_json, to_b64

FORMAT = "scanseal-bundle-1"


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

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy that computes anew what follows from its members: a cached property would tell of the old ones."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied


class Ledger(_Part):
    """Where the records live. A verifier compares it with its trust file and believes the latter."""

    chain_id: UInt64
    anchor_log: Address
    device_registry: Address
    origin: str
    log_id: Word
    log_key: Word


class RecordPart(_Part):
    """A record of any type, member for member; an AcquisitionRecord has no `type`."""

    type: Literal["SyntheticRecord", "GatewayRecord", "CustodyRecord", "ManifestRecord", "Approval"] | None = None
    content: Word
    profile: str
    key: Word
    counter: UInt64
    previous: Word
    claimed_time: UInt64
    beacon_number: UInt64
    beacon_hash: Word
    generator: str | None = None
    parents: Annotated[tuple[Word, ...] | None, Field(strict=False)] = None
    action: str | None = None
    statement: str | None = None
    kind: str | None = None
    count: UInt64 | None = None
    name: str | None = None
    meaning: str | None = None

    @classmethod
    def of(cls, record: Record) -> RecordPart:
        kind = {} if isinstance(record, AcquisitionRecord) else {"type": record.TYPE}
        return cls(**vars(record), **kind)  # type: ignore[arg-type]

    @cached_property
    def value(self) -> Record:
        head = (
            self.content,
            self.profile,
            self.key,
            self.counter,
            self.previous,
            self.claimed_time,
            self.beacon_number,
            self.beacon_hash,
        )
        if self.type is None:
            return AcquisitionRecord(*head)
        return TYPES[self.type](*head, **{name: getattr(self, name) for name in _OWN_MEMBERS[self.type]})

    @model_validator(mode="after")
    def _has_the_members_of_its_type(self) -> RecordPart:
        given = self.model_fields_set - _HEAD_MEMBERS
        expected = _OWN_MEMBERS[self.type] | {"type"} if self.type is not None else frozenset()
        if given != expected:
            raise ValueError(f"the members are not those of a {self.type or AcquisitionRecord.TYPE}")
        return self


_HEAD_MEMBERS: Final = frozenset(one.name for one in fields(Record))
_OWN_MEMBERS: Final = {name: frozenset(one.name for one in fields(kind)) - _HEAD_MEMBERS for name, kind in TYPES.items()}


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


class Renewed(_Part):
    """A record's place in the batch of the bundle's renewal `renewal`, with the RFC 9162 inclusion path (32 bytes a node).

    `image` is what it says of the image, where that was at hand; `opening` is for what is a seal no more: of what opened it
    (`ledger.core.renewal`).
    """

    renewal: UInt64
    index: UInt64
    path: Bytes
    image: Word | None = None
    opening: Word | None = None


class Seal(_Part):
    """One sealed image: record, signature, leaves (32 bytes an item, in order) and the key of the salts.

    `decoder` names what made the item DecodedPixels of a lossy original. `image_key` lets its holder test guesses at the
    attributes: a bundle that has it is for those who may see the image. `kept` are the salts of what a custody record kept.
    """

    record: RecordPart
    signature: Signature
    leaves: Bytes
    image_key: ImageKey
    kept: Bytes | None = None
    study: Annotated[UInt64, Field(exclude_if=lambda study: study == 0)] = 0
    find: Tokens
    decoder: str | None = None
    included: Included | None = None
    tiles: Tiles | None = None
    renewed: Annotated[tuple[Renewed, ...] | None, Field(strict=False)] = None

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

    @cached_property
    def salts(self) -> Salts:
        """Raises EvidenceInvalid (step content or custody) where `image_key` and `kept` are not those that a custody record's
        statement is bound to."""
        record = self.record.value
        statement = Statement.of(record) if isinstance(record, CustodyRecord) else None
        if not (self.kept is None if statement is None else statement.is_opened_by(self.image_key, self.kept)):
            raise EvidenceInvalid("the salts are not those that the record is bound to", "content")
        return Salts.of_parts(self.image_key, self.kept, statement.changed if statement else ())


class RecordEntry(_Part):
    """A record that no image at hand is compared with: a parent, a step of custody, a manifest, an approval. `leaves` are an
    image's, to be compared with a child's or a parent's; nothing here opens them."""

    record: RecordPart
    signature: Signature
    leaves: Bytes | None = None
    included: Included | None = None
    renewed: Annotated[tuple[Renewed, ...] | None, Field(strict=False)] = None

    @cached_property
    def signed(self) -> SignedRecord:
        return SignedRecord(self.record.value, self.signature)

    @cached_property
    def leaf_hashes(self) -> tuple[bytes, ...]:
        return split_words(self.leaves or b"", "content")


Entry = Seal | RecordEntry
"""A signed record as a bundle has it."""


def parents_of(entry: Entry) -> tuple[bytes, ...]:
    """The record ids that a record names as parents."""
    record = entry.record.value
    return record.parents if isinstance(record, CustodyRecord) else ()


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


class Renewal(_Part):
    """A batch of renewed records as the AnchorLog stored it, in a log of whomever: `new_size` - `old_size` leaves under `hash`.
    `state` says which state proof shows it."""

    hash: Literal["blake3"]
    log_id: Word
    old_size: UInt64
    new_size: UInt64
    block_number: UInt64
    block_time: UInt64
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
    records: Annotated[tuple[RecordEntry, ...], Field(strict=False, exclude_if=lambda records: not records)] = ()
    anchors: Annotated[tuple[Anchor, ...], Field(strict=False)] = ()
    states: Annotated[tuple[State, ...], Field(strict=False)] = ()
    headers: Annotated[tuple[Bytes, ...], Field(strict=False)] = ()
    renewals: Annotated[tuple[Renewal, ...], Field(strict=False, exclude_if=lambda renewals: not renewals)] = ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every record in it."""
        return (*self.seals, *self.records)


def split_words(data: bytes, step: str) -> tuple[bytes, ...]:
    """`data` cut into 32-byte words. Raises EvidenceInvalid where a rest is left."""
    if len(data) % 32:
        raise EvidenceInvalid(f"{len(data)} bytes are not whole 32-byte hashes", step)
    return tuple(data[start : start + 32] for start in range(0, len(data), 32))


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
        if not isinstance(seal.record.value, IMAGE_TYPES):
            raise EvidenceInvalid(f"the bundle's seals.{number}.record: {seal.record.type} is no image's")
    for number, entry in enumerate(bundle.entries):
        place = f"seals.{number}" if number < len(bundle.seals) else f"records.{number - len(bundle.seals)}"
        if entry.included is not None and entry.included.anchor >= len(bundle.anchors):
            raise EvidenceInvalid(f"the bundle's {place}.included.anchor: there are {len(bundle.anchors)} anchors")
        if any(one.renewal >= len(bundle.renewals) for one in entry.renewed or ()):
            raise EvidenceInvalid(f"the bundle's {place}.renewed: there are {len(bundle.renewals)} renewals")
    places = [(f"anchors.{number}", anchor.state) for number, anchor in enumerate(bundle.anchors)]
    places += [(f"renewals.{number}", renewal.state) for number, renewal in enumerate(bundle.renewals)]
    for place, state in places:
        if state >= len(bundle.states):
            raise EvidenceInvalid(f"the bundle's {place}.state: there are {len(bundle.states)} states")
    return bundle


def write(bundle: Bundle) -> bytes:
    """The bundle as compact JSON, the same bytes for the same bundle, with a newline at its end."""
    return bundle.model_dump_json(exclude_none=True).encode() + b"\n"
