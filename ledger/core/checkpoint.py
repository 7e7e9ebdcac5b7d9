"""Checkpoints: what a log says its tree is, in C2SP tlog-checkpoint form, signed as a C2SP signed-note with Ed25519.

    example.org/ct-scanner-3
    1234
    l4WbLqhDTJ4bVHlnVnZhfkIFH9UrRxEKO/ReVoQfn0c=

    — example.org/ct-scanner-3 bGl0dGxlIGJveCBvZiBzaWduYXR1cmVz...

A verified checkpoint proves that the log's key signed this size and root. It does not prove that the log shows everybody
the same checkpoint, nor when it was made.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ledger.core.errors import EvidenceInvalid, FixInput
from ledger.core.merkle import HASH_SIZE

ED25519: Final = b"\x01"
"""signed-note's signature type of an Ed25519 signature over the note text."""
SIZE_LIMIT: Final = 1_000_000
"""Bytes of a note: more is refused unread."""
_SIZE_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tree of `size` leaves has `root` (32 bytes), says the log named `origin`."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not is_key_name(self.origin):
            raise FixInput("a log's origin must be one word without spaces, '+' or control characters, like example.org/log")
        if not 0 <= self.size < 1 << _SIZE_BITS:
            raise FixInput(f"a tree of size {self.size} does not exist")
        if len(self.root) != HASH_SIZE:
            raise FixInput(f"a root has {HASH_SIZE} bytes, not {len(self.root)}")

    @property
    def body(self) -> str:
        """The text that is signed: three lines, each ended by a newline, no extension lines."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def is_key_name(name: str) -> bool:
    """Whether signed-note allows `name` for a key: not empty, no Unicode space, no `+`; and no control character here."""
    return bool(name) and not any(letter.isspace() or letter == "+" or not letter.isprintable() for letter in name)


def key_hash(name: str, public_key: bytes) -> bytes:
    """signed-note's 4-byte key ID of an Ed25519 key (32 raw bytes): `SHA-256(name || 0x0A || 0x01 || key)[:4]`."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public_key).digest()[:4]


def sign(checkpoint: Checkpoint, public_key: bytes, signer: Callable[[bytes], bytes]) -> str:
    """The checkpoint as a signed note. `signer` turns the body's bytes into a 64-byte Ed25519 signature by `public_key`.

    The signature is verified before it is returned: `EvidenceInvalid` when the signer holds another key or failed.
    """
    signature = signer(checkpoint.body.encode())
    line = base64.b64encode(key_hash(checkpoint.origin, public_key) + signature).decode()
    note = f"{checkpoint.body}\n— {checkpoint.origin} {line}\n"
    parse_and_verify(note, checkpoint.origin, public_key)
    return note


def parse_and_verify(note: str | bytes, origin: str, public_key: bytes) -> Checkpoint:
    """The checkpoint in `note`, if the log `origin` signed it with `public_key` (32 raw bytes, Ed25519).

    Steps, each ending in `EvidenceInvalid` (step `checkpoint`) when it fails:

    1. strict UTF-8, at most 1 MB, no control character but the newline;
    2. the text ends at the last blank line; every line after it is `— <key name> <canonical base64 of 5 bytes or more>`;
    3. signatures by other keys are ignored; there is one by this key, and every one by this key verifies;
    4. the text is origin, size, root and optional non-empty extension lines, in the one form that the specification allows.

    Extension lines are covered by the signature and otherwise ignored.
    """
    # 1
    text = _decoded(note)
    # 2
    split = text.rfind("\n\n")
    if split < 0:
        raise _invalid("it has no blank line between its text and its signatures")
    body, block = text[: split + 1], text[split + 2 :]
    if not block.endswith("\n"):
        raise _invalid("its last line is missing or has no newline")
    signatures = [_signature(line) for line in block[:-1].split("\n")]
    # 3
    known = (origin, key_hash(origin, public_key))
    by_log = [signature[4:] for name, signature in signatures if (name, signature[:4]) == known]
    if not by_log:
        raise _invalid(f"it has no signature by key {known[1].hex()} of {origin}")
    for signature in by_log:
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(signature, body.encode())
        except (InvalidSignature, ValueError) as error:
            raise _invalid(f"the signature by key {known[1].hex()} of {origin} does not verify") from error
    # 4
    return _parsed(body, origin)


def _parsed(body: str, origin: str) -> Checkpoint:
    lines = body[:-1].split("\n")
    if len(lines) < 3 or "" in lines:
        raise _invalid("its text is not origin, size, root and non-empty extension lines")
    if lines[0] != origin:
        raise _invalid(f"it is of another log than {origin}")
    if not re.fullmatch(r"0|[1-9][0-9]{0,19}", lines[1]) or int(lines[1]) >= 1 << _SIZE_BITS:
        raise _invalid("its second line is not a tree size in plain decimal")
    root = _base64(lines[2])
    if root is None or len(root) != HASH_SIZE:
        raise _invalid("its third line is not the base64 of a 32-byte root")
    return Checkpoint(origin, int(lines[1]), root)


def _decoded(note: str | bytes) -> str:
    try:
        content = note.encode() if isinstance(note, str) else note
        text = content.decode()
    except UnicodeError as error:
        raise _invalid("it is not UTF-8") from error
    if len(content) > SIZE_LIMIT:
        raise _invalid(f"it has {len(content)} bytes, more than {SIZE_LIMIT}")
    if any(letter < " " and letter != "\n" for letter in text):
        raise _invalid("it contains a control character")
    return text


def _signature(line: str) -> tuple[str, bytes]:
    match = re.fullmatch("— ([^ ]+) ([^ ]+)", line)
    signature = _base64(match[2]) if match else None
    if match is None or signature is None or len(signature) < 5 or not is_key_name(match[1]):
        raise _invalid("a signature line is malformed")
    return match[1], signature


def _base64(text: str) -> bytes | None:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return content if base64.b64encode(content).decode() == text else None


def _invalid(reason: str) -> EvidenceInvalid:
    return EvidenceInvalid(f"not a checkpoint: {reason}", "checkpoint")
