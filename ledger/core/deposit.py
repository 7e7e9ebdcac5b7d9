"""Evidence that is left with somebody who learns nothing of it, for those who hold the image. FORMAT.md §12."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ledger.core.errors import EvidenceInvalid, FixInput

NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16


@dataclass(frozen=True, repr=False)
class Deposit:
    """Under which `token` (32 bytes) an image's evidence is found, and the `key` (32 bytes) that opens it."""

    token: bytes
    key: bytes

    @classmethod
    def of(cls, digest: str, instance: str) -> Deposit:
        """For the image with this pixel digest (as a record has it) and SOPInstanceUID.

        Both are needed: a de-identified copy has its parent's pixels, and its holder must not find the parent's evidence.
        Raises FixInput where one is missing.
        """
        if not digest or not instance:
            raise FixInput("evidence is deposited for an image with pixels and a SOPInstanceUID")
        secret = hmac.digest(b"scanseal/deposit", digest.encode() + b"\0" + instance.encode(), hashlib.sha256)
        token, key = (hmac.digest(secret, label, hashlib.sha256) for label in (b"find", b"open"))
        return cls(token, key)

    def sealed(self, bundle: bytes, nonce: bytes) -> bytes:
        """The deposit of a bundle's bytes; `nonce`: 12 bytes that were never used with this image."""
        if len(nonce) != NONCE_SIZE:
            raise FixInput(f"a nonce has {NONCE_SIZE} bytes")
        return nonce + AESGCM(self.key).encrypt(nonce, bundle, self.token)

    def opened(self, body: bytes) -> bytes:
        """The bundle's bytes. Raises EvidenceInvalid where the deposit is not of this image, or damaged."""
        if len(body) <= NONCE_SIZE + TAG_SIZE:
            raise EvidenceInvalid("a deposit is too short")
        try:
            return AESGCM(self.key).decrypt(body[:NONCE_SIZE], body[NONCE_SIZE:], self.token)
        except InvalidTag as error:
            raise EvidenceInvalid("a deposit does not open with this image: it is of another one, or damaged") from error
