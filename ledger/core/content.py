"""What a record binds: one salted leaf for the pixels and for each attribute, under one Merkle root. FORMAT.md §2.

The salts come from a study's secret, so whoever destroys that secret destroys what the leaves could tell, while every root,
record and proof above them still stands.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


def _leaf(salts: HMAC, position: int, value: str | None) -> bytes:
    keyed = salts.copy()
    keyed.update(_NAMES[position])
    tail = b"\0" if value is None else b"\1" + value.encode()
    return hashlib.sha256(b"\0" + keyed.finalize()[:SALT_SIZE] + _HEADS[position] + tail).digest()


def _salts(key: bytes) -> HMAC:
    # Copied for each item: keying HMAC anew costs three times as much as what it then hashes.
    return HMAC(key, hashes.SHA256())


def commit(values: Mapping[str, str | None], key: bytes) -> Content:
    """The commitment to `values` (normalised; an item that is missing or None is committed as absent) under an image key."""
    unknown = values.keys() - _POSITIONS.keys()
    if unknown:
        raise FixInput(f"{', '.join(sorted(unknown))}: not in the list {ATTRIBUTE_LIST}")
    salts = _salts(key)
    leaves = tuple([_leaf(salts, position, values.get(name)) for position, name in enumerate(ITEMS)])
    return Content(merkle.root_of(leaves), leaves)


def opened(leaves: Sequence[bytes], root: bytes) -> tuple[bytes, ...]:
    """The leaves, after checking that they hash to `root`. Raises EvidenceInvalid (step content)."""
    if len(leaves) != len(ITEMS):
        raise EvidenceInvalid(f"{len(leaves)} leaves where {ATTRIBUTE_LIST} has {len(ITEMS)} items", "content")
    if merkle.root_of(leaves) != root:
        raise EvidenceInvalid("the leaves do not hash to the record's content", "content")
    return tuple(leaves)


def opens(leaves: Sequence[bytes], key: bytes, item: str, value: str | None) -> bool:
    """Whether `value` is what was sealed for `item`."""
    position = _POSITIONS[item]
    return hmac.compare_digest(leaves[position], _leaf(_salts(key), position, value))


def differing(leaves: Sequence[bytes], key: bytes, values: Mapping[str, str | None]) -> tuple[str, ...]:
    """The names of the attributes (not the pixel items) whose value is not the one that was sealed."""
    salts = _salts(key)
    return tuple(
        name
        for position, name in enumerate(ITEMS[2:], 2)
        if not hmac.compare_digest(leaves[position], _leaf(salts, position, values.get(name)))
    )
