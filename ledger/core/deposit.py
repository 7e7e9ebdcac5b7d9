"""Evidence that is left with somebody who learns nothing of it, for those who hold the image. FORMAT.md §12."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ledger.core.errors import EvidenceInvalid, FixInput

NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16
WHOSE: Final = ("SOPInstanceUID", "PatientID", "PatientName", "PatientBirthDate")
"""What a de-identified copy has not: its holder must not find the evidence of the original, whose pixels it has."""


def secret_of(digest: str, attributes: Mapping[str, str | None]) -> bytes | None:
    """The 32 bytes that only who has the image can make: of its pixel digest (as a record has it) and of whom it is. None for
    an image without a SOPInstanceUID. `attributes` are normalised (FORMAT.md §2.2)."""
    if not attributes.get("SOPInstanceUID"):
        return None
    values = [digest, *(attributes.get(name) for name in WHOSE)]
    return hmac.digest(b"scanseal/deposit", b"".join(_framed(value) for value in values), hashlib.sha256)


def _framed(value: str | None) -> bytes:
    """So that no two lists of values give the same bytes."""
    if value is None:
        return b"\0"
    text = value.encode()
    return b"\1" + len(text).to_bytes(4, "big") + text


@dataclass(frozen=True, repr=False)
class Deposit:
    """An image's place at whoever keeps evidence: found under `token` by all who have its `secret`, and read by them alone."""

    secret: bytes

    @property
    def token(self) -> bytes:
        """32 bytes, which tell nothing of the secret."""
        return hmac.digest(self.secret, b"find", hashlib.sha256)

    @property
    def _key(self) -> bytes:
        return hmac.digest(self.secret, b"open", hashlib.sha256)

    def sealed(self, bundle: bytes, nonce: bytes) -> bytes:
        """The deposit of a bundle's bytes; `nonce`: 12 bytes that were never used with this image."""
        if len(nonce) != NONCE_SIZE:
            raise FixInput(f"a nonce has {NONCE_SIZE} bytes")
        return nonce + AESGCM(self._key).encrypt(nonce, bundle, self.token)

    def opened(self, body: bytes) -> bytes:
        """The bundle's bytes. Raises EvidenceInvalid where the deposit is not of this image, or damaged."""
        if len(body) <= NONCE_SIZE + TAG_SIZE:
            raise EvidenceInvalid("a deposit is too short")
        try:
            return AESGCM(self._key).decrypt(body[:NONCE_SIZE], body[NONCE_SIZE:], self.token)
        except InvalidTag as error:
            raise EvidenceInvalid("a deposit does not open with this image: it is of another one, or damaged") from error
