"""What a record binds: one salted leaf for the pixels and for each attribute, under one Merkle root. FORMAT.md §2.

The salts come from a study's secret, so whoever destroys that secret destroys what the leaves could tell, while every root,
record and proof above them still stands.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC

from ledger.core import merkle
from ledger.core.attributes import ATTRIBUTES
from ledger.core.errors import EvidenceInvalid, FixInput

ATTRIBUTE_LIST = "attributes-1"
PIXELS = "PixelData"
DECODED = "DecodedPixels"
ITEMS: tuple[str, ...] = (PIXELS, DECODED, *(attribute.keyword for attribute in ATTRIBUTES))
SALT_SIZE = 16
TOKEN_SIZE = 8

_POSITIONS = {name: position for position, name in enumerate(ITEMS)}
_NAMES = tuple(name.encode() for name in ITEMS)
_HEADS = tuple(bytes([len(name)]) + name for name in _NAMES)


@dataclass(frozen=True)
class Content:
    """The commitment of one image: `root` is a record's `content`; `leaves` are in the order of `ITEMS`, 32 bytes each."""

    root: bytes
    leaves: tuple[bytes, ...]


def image_key(study_secret: bytes, pixel_digest: str, sop_instance_uid: str) -> bytes:
    """The 16-byte key of one image's salts. The same image in the same study always gets the same key, so sealing twice
    shows."""
    message = b"scanseal/image\0" + pixel_digest.encode() + b"\0" + sop_instance_uid.encode()
    return hmac.digest(study_secret, message, "sha256")[:SALT_SIZE]


def derived_key(study_secret: bytes, parent: bytes, values: Mapping[str, str | None]) -> bytes:
    """The 16-byte key of the salts of an image that was made from the record `parent` and has these values (as `commit` takes
    them): never the parent's own image key, and never that of another image made from it, even in the same study with the same
    pixels and UID."""
    unsalted = commit(values, Salts(bytes(SALT_SIZE), dict.fromkeys(ITEMS, bytes(SALT_SIZE))))
    return hmac.digest(study_secret, b"scanseal/derived\0" + parent + unsalted.root, "sha256")[:SALT_SIZE]


def salts_hash(key: bytes, kept: bytes) -> bytes:
    """The 32 bytes by which a custody record's statement is bound to what opens its image: the image key and the kept salts."""
    return hashlib.sha256(key + kept).digest()


def find_key(study_secret: bytes) -> bytes:
    """The 32-byte key of a study's look-up tokens: with it a verifier finds the seal of an image among many."""
    return hmac.digest(study_secret, b"scanseal/find", "sha256")


def find_token(key: bytes, item: str, value: str) -> bytes:
    """An 8-byte hint where to look; it proves nothing."""
    return Finder(key).token(item, value)


class Finder:
    """The look-up tokens of one study, for whoever asks for many: keying costs three times as much as a token."""

    def __init__(self, key: bytes) -> None:
        self._keyed = HMAC(key, hashes.SHA256())

    def token(self, item: str, value: str) -> bytes:
        """`find_token` under this study's find key."""
        keyed = self._keyed.copy()
        keyed.update(item.encode() + b"\0" + value.encode())
        return keyed.finalize()[:TOKEN_SIZE]


class Salts:
    """The salts of one image's leaves: made of its image key, but for the items that were `kept` from a parent image, which
    have the parent's."""

    def __init__(self, key: bytes, kept: Mapping[str, bytes] = MappingProxyType({})) -> None:
        # Copied for each item: keying HMAC anew costs three times as much as what it then hashes.
        self._keyed = HMAC(key, hashes.SHA256())
        self._kept = {_POSITIONS[name]: salt for name, salt in kept.items()}

    @classmethod
    def of_parts(cls, key: bytes, kept: bytes | None, changed: Collection[str]) -> Salts:
        """From a seal's image key and `kept`: 16 bytes for each item that is not `changed`. Raises EvidenceInvalid."""
        if kept is None:
            return cls(key)
        names = [name for name in ITEMS if name not in changed]
        if len(kept) != SALT_SIZE * len(names):
            raise EvidenceInvalid(f"{len(kept)} bytes of salts where {len(names)} items are kept", "content")
        parts = (kept[start : start + SALT_SIZE] for start in range(0, len(kept), SALT_SIZE))
        return cls(key, dict(zip(names, parts, strict=True)))

    def salt(self, item: str) -> bytes:
        """The 16-byte salt of an item's leaf."""
        return self._salt(_POSITIONS[item])

    def leaf(self, position: int, value: str | None) -> bytes:
        """The leaf hash of the item at a position of `ITEMS`."""
        tail = b"\0" if value is None else b"\1" + value.encode()
        return hashlib.sha256(b"\0" + self._salt(position) + _HEADS[position] + tail).digest()

    def _salt(self, position: int) -> bytes:
        if self._kept and position in self._kept:
            return self._kept[position]
        keyed = self._keyed.copy()
        keyed.update(_NAMES[position])
        return keyed.finalize()[:SALT_SIZE]


def commit(values: Mapping[str, str | None], salts: Salts) -> Content:
    """The commitment to `values` (normalised; an item that is missing or None is committed as absent)."""
    unknown = values.keys() - _POSITIONS.keys()
    if unknown:
        raise FixInput(f"{', '.join(sorted(unknown))}: not in the list {ATTRIBUTE_LIST}")
    leaves = tuple([salts.leaf(position, values.get(name)) for position, name in enumerate(ITEMS)])
    return Content(merkle.root_of(leaves), leaves)


def opened(leaves: Sequence[bytes], root: bytes) -> tuple[bytes, ...]:
    """The leaves, after checking that they hash to `root`. Raises EvidenceInvalid (step content)."""
    if len(leaves) != len(ITEMS):
        raise EvidenceInvalid(f"{len(leaves)} leaves where {ATTRIBUTE_LIST} has {len(ITEMS)} items", "content")
    if merkle.root_of(leaves) != root:
        raise EvidenceInvalid("the leaves do not hash to the record's content", "content")
    return tuple(leaves)


def opens(leaves: Sequence[bytes], salts: Salts, item: str, value: str | None) -> bool:
    """Whether `value` is what was sealed for `item`."""
    position = _POSITIONS[item]
    return hmac.compare_digest(leaves[position], salts.leaf(position, value))


def differing(leaves: Sequence[bytes], salts: Salts, values: Mapping[str, str | None]) -> tuple[str, ...]:
    """The names of the attributes (not the pixel items) whose value is not the one that was sealed."""
    return tuple(
        name
        for position, name in enumerate(ITEMS[2:], 2)
        if not hmac.compare_digest(leaves[position], salts.leaf(position, values.get(name)))
    )


def unequal(child: Sequence[bytes], parent: Sequence[bytes]) -> tuple[str, ...]:
    """The items whose leaves differ between two images: where a leaf is the same, so is the value under it."""
    return tuple(name for name, one, other in zip(ITEMS, child, parent, strict=True) if one != other)
