"""Tokens (HSM, smart card, TPM) and what is asked of them through PKCS#11 (OASIS, version 2.40).

PKCS#11 keeps its state a process: a module is started once, a token is logged in once for all of the process's sessions, and a
child process must start anew (§2.4 of the usage guide). So modules, too, are kept here once a process, with one lock each:
modules are not told that threads exist.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import pkcs11
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11 import DEFAULT, Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass, PKCS11Error, TokenFlag

from ledger.core.errors import FixInput, NeedPermission, ScanSealError, TryLater

Curve = Literal["secp256k1", "p256"]
Answer = TypeVar("Answer")

# DER of the curves' object identifiers, as CKA_EC_PARAMS has them (RFC 5480 §2.1.1.1, SEC 2 §A.2.1).
_PARAMETERS: dict[Curve, bytes] = {
    "p256": bytes.fromhex("06082a8648ce3d030107"),
    "secp256k1": bytes.fromhex("06052b8104000a"),
}
_CURVES: dict[Curve, ec.EllipticCurve] = {"p256": ec.SECP256R1(), "secp256k1": ec.SECP256K1()}
_POINT = bytes.fromhex("0441")
"""DER of an octet string of 65 bytes: an uncompressed point."""
_KNOWN_MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/*/softhsm/libsofthsm2.so",
    "/usr/lib/*/opensc-pkcs11.so",
    "/usr/lib/*/libykcs11.so",
    "/usr/lib/*/pkcs11/yubihsm_pkcs11.so",
    "/usr/lib/*/libtpm2_pkcs11.so*",
    "/usr/lib64/pkcs11/*.so",
)
_WRONG_PIN = (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange)
_NEVER = (
    pkcs11.FunctionNotSupported,
    pkcs11.KeySizeRange,
    pkcs11.KeyTypeInconsistent,
    pkcs11.MechanismInvalid,
    pkcs11.MechanismParamInvalid,
)
"""What a token says that can't do it, today or tomorrow."""
_PAUSES_S = (0.0, 0.05, 0.2)
"""Before each new start of a module in one call. SoftHSM2 does not see a token in the milliseconds in which another process
logs it in (2.6.1: its file is written in place), so one start is not enough."""
_OUTSIDE = (
    pkcs11.DeviceError,
    pkcs11.DeviceMemory,
    pkcs11.DeviceRemoved,
    pkcs11.HostMemory,
    pkcs11.SessionClosed,
    pkcs11.SessionCount,
    pkcs11.SessionHandleInvalid,
    pkcs11.TokenNotPresent,
    pkcs11.UserNotLoggedIn,
)


@dataclass(frozen=True)
class KeyName:
    """A key on a token: by its label, its id, or both."""

    label: str | None
    id: bytes | None

    def __str__(self) -> str:
        named = [f"label {self.label!r}"] if self.label is not None else []
        return " and ".join(named + ([f"id {self.id.hex()}"] if self.id is not None else []))

    def template(self, kind: ObjectClass) -> dict[Attribute, Any]:
        wanted: dict[Attribute, Any] = {Attribute.CLASS: kind, Attribute.KEY_TYPE: KeyType.EC}
        wanted |= {Attribute.LABEL: self.label} if self.label is not None else {}
        return wanted | ({Attribute.ID: self.id} if self.id is not None else {})


@dataclass(frozen=True)
class Pin:
    """Where a token's PIN comes from, and how to get it; it is read when it is needed, and shown nowhere."""

    source: str
    read: Callable[[], str]


class Token:
    """A token of this machine, by its module and its label.

    Where a session broke (the token was taken out, somebody logged it out, the module was started anew, the process forked)
    the module is started anew, and what was asked is asked again. Every method may raise FixInput (module, token, key or PIN
    are wrong), NeedPermission (the PIN is locked) and TryLater.
    """

    def __init__(self, module: Path, label: str, pin: Pin) -> None:
        self._module, self._label, self._pin = module, label, pin
        self._was_there = False

    def sign(self, key: KeyName, digest: bytes) -> bytes:
        """CKM_ECDSA over a digest of 32 bytes: r || s, as the token gives it."""

        def signed(session: _Session) -> bytes:
            return bytes(session.private_key(key).sign(digest, mechanism=Mechanism.ECDSA))

        return self._using(signed)

    def public_key(self, key: KeyName) -> tuple[bytes, bool]:
        """The key's SubjectPublicKeyInfo in DER, and whether it was made on the token and never was outside."""

        def found(session: _Session) -> tuple[bytes, bool]:
            private = session.private_key(key)
            return session.public_key(key), _is_true(private, Attribute.NEVER_EXTRACTABLE)

        return self._using(found)

    def make(self, key: KeyName, curve: Curve) -> bytes:
        """A new key pair of this label and id, which can't be taken out; its SubjectPublicKeyInfo in DER."""

        def is_taken(session: _Session) -> bool:
            parts = [KeyName(key.label, None)] if key.label is not None else []
            parts += [KeyName(None, key.id)] if key.id is not None else []
            return any(session.objects(ObjectClass.PRIVATE_KEY, part) for part in parts)

        def made(session: _Session) -> bytes:
            try:
                session.generate(key, curve)
            except _OUTSIDE:
                raise
            except PKCS11Error as error:
                raise FixInput(f"the token {self._label!r} makes no {curve} keys that stay in it ({_words(error)})") from error
            return session.public_key(key)

        if self._using(is_taken):
            raise FixInput(
                f"the token {self._label!r} has a key with this label or id already: "
                "take it with --existing-key, or give another --key-label"
            )
        return self._using(made, again=False)

    def _using(self, action: Callable[[_Session], Answer], *, again: bool = True) -> Answer:
        module = _module(self._module)
        with module.lock:
            try:
                return self._once(module, action)
            except PKCS11Error as error:
                failure = error
            for pause in _PAUSES_S if again and not isinstance(failure, _NEVER) else ():
                time.sleep(pause)
                try:
                    module.restart()
                    return self._once(module, action)
                except PKCS11Error as error:
                    failure = error
            raise self._explained(failure, module) from failure

    def _once(self, module: _Module, action: Callable[[_Session], Answer]) -> Answer:
        session = module.session(self._label, self._pin)
        self._was_there = True
        return action(session)

    def _explained(self, error: PKCS11Error, module: _Module) -> ScanSealError:
        what = f"the token {self._label!r}"
        if isinstance(error, pkcs11.NoSuchToken) and not self._was_there:
            return FixInput(f"no token {self._label!r} in {self._module}: {_listed('there is', module.labels())}")
        if isinstance(error, pkcs11.UserPinNotInitialized):
            return FixInput(f"{what} has no user PIN yet: set one by its maker's tool")
        if isinstance(error, pkcs11.MultipleTokensReturned):
            return FixInput(f"more than one token is called {self._label!r}: give them different labels")
        if isinstance(error, pkcs11.NoSuchKey | pkcs11.MultipleObjectsReturned):
            return FixInput(f"{what} has {error}")
        if isinstance(error, _NEVER):
            return FixInput(
                f"{what} cannot do this with that key ({_words(error)}): ScanSeal needs CKM_ECDSA on P-256 or secp256k1"
            )
        return TryLater(
            f"{what} does not answer ({_words(error)}): see that it is plugged in and that its service runs; nothing was signed"
        )


@dataclass
class _Session:
    """A token that is logged in, and the keys that were found on it."""

    token: pkcs11.Token
    session: pkcs11.Session
    keys: dict[KeyName, Any] = field(default_factory=dict)

    def objects(self, kind: ObjectClass, key: KeyName) -> list[Any]:
        return list(self.session.get_objects(key.template(kind)))

    def private_key(self, key: KeyName) -> Any:
        """The one key of this name, fit to sign and unfit to be taken out. Raises FixInput, NoSuchKey."""
        if key not in self.keys:
            self.keys[key] = _fit(self._one(ObjectClass.PRIVATE_KEY, key), key)
        return self.keys[key]

    def public_key(self, key: KeyName) -> bytes:
        """SubjectPublicKeyInfo in DER, of the public key that lies beside the private one. Raises FixInput, NoSuchKey."""
        found = self._one(ObjectClass.PUBLIC_KEY, key)
        parameters, point = bytes(found[Attribute.EC_PARAMS]), bytes(found[Attribute.EC_POINT])
        curve = next((name for name, der in _PARAMETERS.items() if der == parameters), None)
        if curve is None:
            raise FixInput(f"the key of {key} is neither P-256 nor secp256k1: make another")
        try:
            public = ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[curve], point.removeprefix(_POINT))
        except ValueError as error:
            raise FixInput(f"the public key of {key} on the token is no point of {curve}") from error
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def generate(self, key: KeyName, curve: Curve) -> None:
        writable = self.token.open(rw=True)
        try:
            public, private = writable.create_domain_parameters(
                KeyType.EC, {Attribute.EC_PARAMS: _PARAMETERS[curve]}, local=True
            ).generate_keypair(
                id=key.id,
                label=key.label,
                store=True,
                capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
                mechanism=Mechanism.EC_KEY_PAIR_GEN,
                # tpm2-pkcs11 refuses to be told that a key does not encrypt, which no mechanism on these curves does anyway.
                public_template={Attribute.ENCRYPT: DEFAULT},
                private_template={Attribute.DECRYPT: DEFAULT, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
            )
            try:
                _fit(private, key)
            except FixInput:
                private.destroy()
                public.destroy()
                raise
        finally:
            writable.close()

    def _one(self, kind: ObjectClass, key: KeyName) -> Any:
        found = self.objects(kind, key)
        word = "private" if kind is ObjectClass.PRIVATE_KEY else "public"
        if not found:
            others = self.objects(kind, KeyName(None, None))
            names = [str(KeyName(other.label or None, bytes(other.id) or None)) for other in others]
            raise pkcs11.NoSuchKey(f"no {word} elliptic curve key of {key}: {_listed('it has', names)}")
        if len(found) > 1:
            raise pkcs11.MultipleObjectsReturned(f"{len(found)} {word} keys of {key}: name one by label and id")
        return found[0]


class _Module:
    """A PKCS#11 module that runs in this process, with the tokens that are logged in."""

    def __init__(self, path: Path, is_forked: bool) -> None:
        self.pid, self.lock = os.getpid(), threading.RLock()
        self._path, self._is_forked = path, is_forked
        self._sessions: dict[str, _Session] = {}

    def session(self, label: str, pin: Pin) -> _Session:
        """The token of this label, logged in. Raises PKCS11Error, FixInput, NeedPermission."""
        if label not in self._sessions:
            token = self._token(label)
            self._sessions[label] = _Session(token, _logged_in(self._path, token, pin))
        return self._sessions[label]

    def labels(self) -> list[str]:
        """What the tokens here are called; nothing where the module does not say."""
        try:
            return [repr(token.label) for token in self._tokens() if token.label]
        except PKCS11Error:
            return []

    def restart(self) -> None:
        """Finalizes the module and starts it anew, which ends every session of this process. Raises PKCS11Error, FixInput."""
        self._sessions.clear()
        library = self._library()
        # It may not run, or be in no state to stop: whether it starts is what counts.
        with suppress(PKCS11Error):
            library.finalize()
        library.initialize()

    def _token(self, label: str) -> pkcs11.Token:
        found = [token for token in self._tokens() if token.label == label]
        if not found:
            raise pkcs11.NoSuchToken(f"no token {label!r}")
        if len(found) > 1:
            raise pkcs11.MultipleTokensReturned(f"{len(found)} tokens {label!r}")
        return found[0]

    def _tokens(self) -> list[pkcs11.Token]:
        if self._is_forked:
            self._is_forked = False
            self.restart()
        tokens = []
        for slot in self._library().get_slots(token_present=True):
            with suppress(pkcs11.TokenNotPresent, pkcs11.TokenNotRecognised):
                tokens.append(slot.get_token())
        return tokens

    def _library(self) -> Any:
        if not self._path.is_file():
            known = sorted(str(path) for pattern in _KNOWN_MODULES for path in Path("/").glob(pattern[1:]))
            raise FixInput(f"no PKCS#11 module {self._path}: {_listed('on this machine there is', known)}")
        try:
            return pkcs11.lib(str(self._path))
        except PKCS11Error as error:
            if type(error) is PKCS11Error:  # What the loader says; a module's own answers have classes of their own.
                raise FixInput(f"{self._path} cannot be loaded as a PKCS#11 module") from error
            raise


_modules: dict[Path, _Module] = {}
_refused: dict[tuple[Path, str], bytes] = {}
"""The PIN (as a hash with this process's salt) that a token refused last."""
_salt = secrets.token_bytes(32)


def _module(path: Path) -> _Module:
    known = _modules.get(path)
    if known is not None and known.pid == os.getpid():
        return known
    fresh = _Module(path, is_forked=known is not None)
    if known is not None:
        _modules[path] = fresh
    return _modules.setdefault(path, fresh)


def _logged_in(module: Path, token: pkcs11.Token, pin: Pin) -> pkcs11.Session:
    """A session, logged in. A wrong PIN is tried once in a process, and never when it would be the token's last try.

    Raises PKCS11Error, FixInput, NeedPermission.
    """
    what = f"the token {token.label!r}"
    if token.flags & TokenFlag.USER_PIN_LOCKED:
        raise _no_login(pkcs11.PinLocked(), what)
    if token.flags & TokenFlag.USER_PIN_FINAL_TRY:
        raise NeedPermission(
            f"{what} locks its PIN at the next wrong one, so none was tried: "
            "log in once by its maker's tool, which sets the count back"
        )
    given = pin.read()
    mark = hashlib.sha256(_salt + given.encode()).digest()
    refusal = FixInput(
        f"{what} refuses the PIN from {pin.source}: tokens lock after a few, so it is not tried again; correct it"
    )
    if _refused.get((module, token.label)) == mark:
        raise refusal
    try:
        session = token.open(user_pin=given)
    except _WRONG_PIN as error:
        _refused[module, token.label] = mark
        raise refusal from error
    except (pkcs11.PinLocked, pkcs11.PinExpired) as error:
        raise _no_login(error, what) from error
    _refused.pop((module, token.label), None)
    return session


def _no_login(error: PKCS11Error, what: str) -> NeedPermission:
    if isinstance(error, pkcs11.PinExpired):
        return NeedPermission(f"{what} wants a new PIN: set one by its maker's tool")
    return NeedPermission(
        f"{what} has locked its PIN after wrong ones: its security officer must set another by its maker's tool"
    )


def _fit(private: Any, key: KeyName) -> Any:
    """The key itself, where it signs and stays in the token. Raises FixInput."""
    if not _is_true(private, Attribute.SENSITIVE) or _is_true(private, Attribute.EXTRACTABLE, unless_said=True):
        raise FixInput(f"the key of {key} can be taken out of its token: make one that can't (not extractable, sensitive)")
    if not isinstance(private, pkcs11.SignMixin):
        raise FixInput(f"the key of {key} may not sign: make one that may")
    if _is_true(private, Attribute.ALWAYS_AUTHENTICATE):
        raise FixInput(f"the key of {key} asks for the PIN at each signature: make one that does not")
    return private


def _is_true(key: Any, attribute: Attribute, *, unless_said: bool = False) -> bool:
    try:
        return bool(key[attribute])
    except (pkcs11.AttributeTypeInvalid, pkcs11.AttributeSensitive, pkcs11.FunctionFailed):
        return unless_said


def _listed(verb: str, names: list[str]) -> str:
    return f"{verb} {', '.join(names)}" if names else f"{verb} none"


def _words(error: PKCS11Error) -> str:
    """What a token answered: the name that the standard has for it, or the number."""
    return type(error).__name__ if type(error) is not PKCS11Error else str(error)
