"""Device keys on disk: secp256k1 in an encrypted keystore v3 (`.json`), P-256 in an encrypted PKCS#8 PEM (`.pem`), or the file
that names a key in hardware (`.pkcs11.toml`)."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import coincurve
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ledger.core.errors import FixInput, NeedPermission
from ledger.core.signatures import key_id, low_s

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

Curve = Literal["secp256k1", "p256"]
IN_HARDWARE = ".pkcs11.toml"
SUFFIXES = (".json", ".pem", IN_HARDWARE)
_PREHASHED = ec.ECDSA(Prehashed(hashes.SHA256()))


class Signer(Protocol):
    """A key that signs 32-byte digests. `sign` may take long (a token asks for a PIN) and may raise TryLater."""

    @property
    def public_key_der(self) -> bytes: ...

    @property
    def key(self) -> bytes: ...

    def sign(self, digest: bytes) -> bytes: ...


class SoftwareSigner:
    """A key in this process's memory. `sign` gives 64 bytes r || s with low s."""

    def __init__(self, private_key: ec.EllipticCurvePrivateKey) -> None:
        self.private_key = private_key
        self.public_key_der = private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.key = key_id(self.public_key_der)
        self._fast = None
        if private_key.curve.name == "secp256k1":
            self._fast = coincurve.PrivateKey.from_int(private_key.private_numbers().private_value)

    def sign(self, digest: bytes) -> bytes:
        if self._fast is not None:
            return self._fast.sign_recoverable(digest, hasher=None)[:64]
        r, s = decode_dss_signature(self.private_key.sign(digest, _PREHASHED))
        return low_s("secp256r1", r.to_bytes(32, "big") + s.to_bytes(32, "big"))


def _accounts() -> Any:
    """`eth_account.Account`, which takes a third of a second to load: for those alone who open a keystore."""
    from eth_account import Account

    return Account


def new_key(curve: Curve) -> SoftwareSigner:
    """A fresh key from the operating system's randomness."""
    return SoftwareSigner(ec.generate_private_key(ec.SECP256K1() if curve == "secp256k1" else ec.SECP256R1()))


def save(signer: SoftwareSigner, path: Path, passphrase: str) -> Path:
    """Writes the key, encrypted, with the suffix of its kind after `path`; never over an existing file. Returns the file's
    path."""
    if signer.private_key.curve.name == "secp256k1":
        secret = signer.private_key.private_numbers().private_value.to_bytes(32, "big")
        return write_secret(path.with_name(path.name + ".json"), json.dumps(_accounts().encrypt(secret, passphrase)).encode())
    pem = signer.private_key.private_bytes(
        Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(passphrase.encode())
    )
    return write_secret(path.with_name(path.name + ".pem"), pem)


def load(path: Path, passphrase: str) -> Signer:
    """The key of a keystore v3 or PEM file, or in hardware, where the passphrase is of no use.

    Raises FixInput where the file, the passphrase or the PIN is wrong, NeedPermission where a PIN is locked, TryLater where a
    token does not answer.
    """
    if path.name.endswith(IN_HARDWARE):
        from ledger.keys import pkcs11

        return pkcs11.load(path)
    return load_software(path, passphrase)


def load_software(path: Path, passphrase: str) -> SoftwareSigner:
    """The key of a keystore v3 or PEM file. Raises FixInput where the file or the passphrase is wrong."""
    if path.suffix == ".json":
        secret = _keystore_secret(path, passphrase)
        return SoftwareSigner(ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256K1()))
    private_key = load_pem(path, passphrase)
    if not isinstance(private_key, ec.EllipticCurvePrivateKey) or private_key.curve.name not in ("secp256k1", "secp256r1"):
        raise FixInput(f"{path}: not a secp256k1 or P-256 key")
    return SoftwareSigner(private_key)


def load_pem(path: Path, passphrase: str) -> object:
    """Any private key from an encrypted PKCS#8 PEM file. Raises FixInput where the file or the passphrase is wrong."""
    try:
        return serialization.load_pem_private_key(path.read_bytes(), passphrase.encode())
    except FileNotFoundError as error:
        raise FixInput(f"{path}: no such key file") from error
    except (ValueError, TypeError) as error:
        raise FixInput(f"{path}: not an encrypted PEM key, or the passphrase is wrong") from error


def new_account() -> LocalAccount:
    """A fresh chain account: it pays gas, and owns logs and roles in the contracts."""
    account: LocalAccount = _accounts().from_key(secrets.token_bytes(32))
    return account


def save_account(account: LocalAccount, path: Path, passphrase: str) -> Path:
    return write_secret(path, json.dumps(_accounts().encrypt(account.key, passphrase)).encode())


def load_account(path: Path, passphrase: str) -> LocalAccount:
    account: LocalAccount = _accounts().from_key(_keystore_secret(path, passphrase))
    return account


def _keystore_secret(path: Path, passphrase: str) -> bytes:
    try:
        return bytes(_accounts().decrypt(json.loads(path.read_text()), passphrase))
    except FileNotFoundError as error:
        raise FixInput(f"{path}: no such key file") from error
    except (ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise FixInput(f"{path}: not a keystore v3 file, or the passphrase is wrong") from error


def write_secret(path: Path, secret: bytes) -> Path:
    """Writes a new file that only its owner may read, durably. Raises FixInput where it exists, NeedPermission where it may
    not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise FixInput(f"{path} exists already; it is never overwritten") from error
    except OSError as error:
        raise NeedPermission(f"{path.parent}: cannot write ({error.strerror})") from error
    with os.fdopen(handle, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    return path
