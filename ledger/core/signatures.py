"""Checking signatures of enrolled keys: ECDSA over a 32-byte digest, on secp256k1 and P-256, low `s` only. FORMAT.md §3."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import coincurve
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from ledger.core.errors import EvidenceInvalid

ORDERS = {
    "secp256k1": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}
_PREHASHED = ec.ECDSA(Prehashed(hashes.SHA256()))


def key_id(public_key_der: bytes) -> bytes:
    """A key's 32-byte name everywhere: SHA-256 of its SubjectPublicKeyInfo in DER."""
    return hashlib.sha256(public_key_der).digest()


@lru_cache(maxsize=1024)
def _public_key(public_key_der: bytes) -> tuple[str, ec.EllipticCurvePublicKey, coincurve.PublicKey | None]:
    try:
        key = serialization.load_der_public_key(public_key_der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise EvidenceInvalid("the certificate's public key cannot be read", "signature") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in ORDERS:
        raise EvidenceInvalid("the certificate's public key is neither secp256k1 nor P-256", "signature")
    fast = None
    if key.curve.name == "secp256k1":
        point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        fast = coincurve.PublicKey(point)
    return key.curve.name, key, fast


def algorithm_of(public_key_der: bytes) -> str:
    """What a key signs with, by the name that trust files have for it: secp256k1 or p256; `other` for anything else."""
    try:
        return {"secp256k1": "secp256k1", "secp256r1": "p256"}[_public_key(public_key_der)[0]]
    except EvidenceInvalid:
        return "other"


def low_s(curve: str, signature: bytes) -> bytes:
    """`r || s` with `s` in the lower half of the group's order: the one form of a signature that verifies here."""
    order = ORDERS[curve]
    s = int.from_bytes(signature[32:], "big")
    return signature[:32] + min(s, order - s).to_bytes(32, "big")


def check(public_key_der: bytes, digest: bytes, signature: bytes) -> None:
    """Raises EvidenceInvalid (step signature) unless `signature` (64 bytes, r || s, low s) is the key's over `digest` (32
    bytes).

    Proves that the key signed this digest; not when, and not that the key was allowed to.
    """
    curve, key, fast = _public_key(public_key_der)
    order = ORDERS[curve]
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if len(signature) != 64 or not 0 < r < order or not 0 < s <= order // 2:
        raise EvidenceInvalid("the signature is not in its one valid form (64 bytes, r || s, low s)", "signature")
    der = encode_dss_signature(r, s)
    if fast is not None:
        valid = fast.verify(der, digest, hasher=None)
    else:
        try:
            key.verify(der, digest, _PREHASHED)
            valid = True
        except InvalidSignature:
            valid = False
    if not valid:
        raise EvidenceInvalid("the signature is not by the key that the record names", "signature")
