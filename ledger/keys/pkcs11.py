"""Device keys in hardware: the file that names one (`NAME.pkcs11.toml`), and the signer that has the token sign.

The file says where the key is and where the PIN is to be had; never the key, never the PIN. docs/hardware-keys.md.

    module = "/usr/lib/softhsm/libsofthsm2.so"
    token = "hospital"
    key_label = "ct1"                # key_label, key_id (hex), or both
    key_id = "8f0e"
    pin_file = "/etc/scanseal/pin"   # or: pin_env = "TOKEN_PIN"
    public_key = "3059..."           # SubjectPublicKeyInfo in DER, hex: whose signatures are given out
"""

from __future__ import annotations

import os
import re
import secrets
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w

from ledger.core.errors import EvidenceInvalid, FixInput, Stop
from ledger.core.signatures import algorithm_of, check, key_id, low_s
from ledger.keys.signers import IN_HARDWARE, write_secret
from ledger.keys.tokens import Curve, KeyName, Pin, Token

_ENTRIES = ("module", "token", "key_label", "key_id", "pin_file", "pin_env", "public_key")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_ID_BYTES = 16


@dataclass(frozen=True)
class Place:
    """Where a key is: module, token, the key's label or id, and the file or the environment variable that has the PIN; both
    paths absolute. Raises FixInput where it can't be one, which shows no value: one may be a PIN."""

    module: Path
    token: str
    key_label: str | None = None
    key_id: bytes | None = None
    pin_file: Path | None = None
    pin_env: str | None = None

    def __post_init__(self) -> None:
        if not self.module.is_absolute():
            raise FixInput("the PKCS#11 module must be named by its whole path")
        if not self.token or self.key_label == "" or self.key_id == b"":
            raise FixInput("a token, a key's label and a key's id cannot be empty")
        if self.key_label is None and self.key_id is None:
            raise FixInput("name the key on the token by its label or its id")
        if (self.pin_file is None) == (self.pin_env is None):
            raise FixInput("say where the token's PIN comes from, by a file or by an environment variable: one of the two")
        if self.pin_env is not None and not _VARIABLE.fullmatch(self.pin_env):
            raise FixInput("pin_env names an environment variable, in capitals; it never holds the PIN itself")
        if self.pin_file is not None and not self.pin_file.is_absolute():
            raise FixInput("the file that has the PIN must be named by its whole path")

    @property
    def key(self) -> KeyName:
        return KeyName(self.key_label, self.key_id)

    def opened(self) -> Token:
        return Token(self.module, self.token, Pin(self.pin_source, self.pin))

    @property
    def pin_source(self) -> str:
        return f"the file {self.pin_file}" if self.pin_file is not None else f"the variable {self.pin_env}"

    def pin(self) -> str:
        """The PIN as it is now. Raises FixInput."""
        if self.pin_env is not None:
            found = os.environ.get(self.pin_env, "")
        else:
            try:
                found = Path(self.pin_file or "").read_text(encoding="utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise FixInput(f"{self.pin_source} is not UTF-8 text") from error
            except OSError as error:
                raise FixInput(f"{self.pin_source}, for the token's PIN, cannot be read ({error.strerror})") from error
        if not found:
            raise FixInput(f"{self.pin_source}, for the token's PIN, is empty")
        return found


class Pkcs11Signer:
    """A key on a token. `sign` gives 64 bytes r || s with low s, after checking them against the public key.

    It may raise TryLater (the token is gone), FixInput and NeedPermission (its PIN was changed or locked), and Stop where the
    token gave a signature that is not its key's.
    """

    def __init__(self, place: Place, public_key_der: bytes) -> None:
        self.place, self.public_key_der = place, public_key_der
        self.key = key_id(public_key_der)
        self._curve = "secp256k1" if algorithm_of(public_key_der) == "secp256k1" else "secp256r1"
        self._token = place.opened()

    def sign(self, digest: bytes) -> bytes:
        signature = low_s(self._curve, self._token.sign(self.place.key, digest))
        try:
            check(self.public_key_der, digest, signature)
        except EvidenceInvalid as error:
            raise Stop(
                f"the token {self.place.token!r} gave a signature that is not by the key of {self.place.key}: "
                "nothing was signed; have the token checked before it is used again"
            ) from error
        return signature

    def require_token(self) -> None:
        """Raises FixInput, NeedPermission or TryLater unless the token is there and has this very key."""
        found, _ = self._token.public_key(self.place.key)
        if found != self.public_key_der:
            raise FixInput(f"the token {self.place.token!r} has another key of {self.place.key} than the key file names")


def make(place: Place, curve: Curve) -> Pkcs11Signer:
    """A new key on the token, under the place's label and id (a random id where it names none): it signs, and can't be taken
    out. Raises FixInput where the token has a key of that name."""
    named = place if place.key_id is not None else replace(place, key_id=secrets.token_bytes(_ID_BYTES))
    return Pkcs11Signer(named, named.opened().make(named.key, curve))


def existing(place: Place) -> tuple[Pkcs11Signer, bool]:
    """A key that is on the token already, and whether it was made there and never was outside. Raises FixInput."""
    public_key_der, never_outside = place.opened().public_key(place.key)
    return Pkcs11Signer(place, public_key_der), never_outside


def save(signer: Pkcs11Signer, path: Path) -> Path:
    """Writes the key file, with its suffix after `path`; never over an existing file. Returns the file's path."""
    place = signer.place
    values = {"module": str(place.module), "token": place.token, "key_label": place.key_label}
    values |= {"key_id": place.key_id.hex() if place.key_id is not None else None}
    values |= {"pin_file": str(place.pin_file) if place.pin_file is not None else None, "pin_env": place.pin_env}
    values |= {"public_key": signer.public_key_der.hex()}
    text = tomli_w.dumps({name: value for name, value in values.items() if value is not None})
    return write_secret(path.with_name(path.name + IN_HARDWARE), text.encode())


def load(path: Path) -> Pkcs11Signer:
    """The signer of a key file, with its token logged in. Raises FixInput, NeedPermission, TryLater."""
    signer = read(path)
    signer.require_token()
    return signer


def read(path: Path) -> Pkcs11Signer:
    """The signer of a key file; no token is asked. Raises FixInput, which shows no value of the file: one may be a PIN."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FixInput(f"{path}: no such key file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FixInput(f"{path}: not a key file in TOML") from error
    unknown = sorted(set(values) - set(_ENTRIES))
    if any("pin" in name.lower() for name in unknown):
        raise FixInput(f"{path} has a PIN in it: take it out, give the token another, and name a pin_file or a pin_env")
    if unknown:
        raise FixInput(f"{path} has entries that a key file has not ({', '.join(unknown)}); it has {', '.join(_ENTRIES)}")
    if not all(isinstance(value, str) for value in values.values()):
        raise FixInput(f"{path}: every entry is a text")
    try:
        place, public_key = _place(values), bytes.fromhex(values["public_key"])
    except KeyError as error:
        raise FixInput(f"{path}: {error.args[0]} is missing: `scanseal device request` writes the whole file") from error
    except ValueError as error:
        raise FixInput(f"{path}: key_id and public_key are written in hex") from error
    except FixInput as error:
        raise FixInput(f"{path}: {error}") from error
    if algorithm_of(public_key) == "other":
        raise FixInput(f"{path}: public_key is neither of P-256 nor of secp256k1")
    return Pkcs11Signer(place, public_key)


def _place(values: dict[str, Any]) -> Place:
    identity = bytes.fromhex(values["key_id"]) if "key_id" in values else None
    pin_file = Path(values["pin_file"]) if "pin_file" in values else None
    return Place(Path(values["module"]), values["token"], values.get("key_label"), identity, pin_file, values.get("pin_env"))
