"""Checkpoints: strict parsing of signed notes, and `openssl` as the second opinion on the signature."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.core.checkpoint import Checkpoint, key_hash, parse_and_verify, sign
from ledger.core.errors import EvidenceInvalid, FixInput

ORIGIN = "example.org/log"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
CHECKPOINT = Checkpoint(ORIGIN, 1234, bytes(range(32, 64)))
NOTE = sign(CHECKPOINT, PUBLIC, KEY.sign)


def note_over(body: str, name: str = ORIGIN, key: Ed25519PrivateKey = KEY) -> str:
    signature = key_hash(name, key.public_key().public_bytes_raw()) + key.sign(body.encode())
    return f"{body}\n— {name} {base64.b64encode(signature).decode()}\n"


def refused(note: str | bytes, reason: str, origin: str = ORIGIN, public_key: bytes = PUBLIC) -> None:
    with pytest.raises(EvidenceInvalid, match=reason) as caught:
        parse_and_verify(note, origin, public_key)
    assert caught.value.step == "checkpoint"


def test_a_signed_checkpoint_has_the_form_of_the_specification() -> None:
    lines = NOTE.split("\n")
    assert lines[:4] == [ORIGIN, "1234", "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=", ""]
    assert lines[4].startswith(f"— {ORIGIN} ")
    assert lines[5:] == [""]
    assert parse_and_verify(NOTE, ORIGIN, PUBLIC) == parse_and_verify(NOTE.encode(), ORIGIN, PUBLIC) == CHECKPOINT


def test_openssl_verifies_our_signature_and_refuses_another_body(tmp_path: Path) -> None:
    spki = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(spki)
    (tmp_path / "signature").write_bytes(base64.b64decode(NOTE.split(" ")[-1])[4:])
    for body, code in ((CHECKPOINT.body, 0), (CHECKPOINT.body.replace("1234", "1235"), 1)):
        (tmp_path / "body").write_bytes(body.encode())
        command = "openssl pkeyutl -verify -pubin -inkey key.pem -rawin -in body -sigfile signature"
        assert subprocess.run(command.split(), cwd=tmp_path, capture_output=True, check=False).returncode == code


def test_the_key_id_is_that_of_the_go_checksum_database() -> None:
    # Published verifier key of sum.golang.org: <name>+<key ID>+<base64(type || key)>.
    name, key_id, key = "sum.golang.org", "033de0ae", "Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
    assert key_hash(name, base64.b64decode(key)[1:]).hex() == key_id


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_bytes_crash_the_parser(content: bytes) -> None:
    refused(content, "not a checkpoint")


@given(st.integers(0, len(NOTE.encode()) - 1), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_no_changed_byte_is_accepted(position: int, flip: int) -> None:
    content = bytearray(NOTE.encode())
    content[position] ^= flip
    refused(bytes(content), "not a checkpoint")


def test_signatures_by_unknown_keys_are_ignored() -> None:
    witness = base64.b64encode(b"\x00\x01\x02\x03" + bytes(72)).decode()
    body, line = NOTE.split("\n\n")
    assert parse_and_verify(f"{body}\n\n— witness.example {witness}\n{line}", ORIGIN, PUBLIC) == CHECKPOINT
    assert parse_and_verify(f"{NOTE}— witness.example {witness}\n", ORIGIN, PUBLIC) == CHECKPOINT
    assert parse_and_verify(f"{NOTE}— {ORIGIN} {witness}\n", ORIGIN, PUBLIC) == CHECKPOINT
    assert parse_and_verify(NOTE + line, ORIGIN, PUBLIC) == CHECKPOINT


def test_a_signature_with_our_key_id_that_fails_spoils_the_note() -> None:
    forged = base64.b64encode(key_hash(ORIGIN, PUBLIC) + bytes(64)).decode()
    refused(f"{NOTE}— {ORIGIN} {forged}\n", "does not verify")
    short = base64.b64encode(key_hash(ORIGIN, PUBLIC) + bytes(5)).decode()
    refused(f"{CHECKPOINT.body}\n— {ORIGIN} {short}\n", "does not verify")


def test_extension_lines_are_allowed_and_signed_but_never_made() -> None:
    extended = note_over(CHECKPOINT.body + "extension line\n")
    assert parse_and_verify(extended, ORIGIN, PUBLIC) == CHECKPOINT
    refused(extended.replace("extension", "Extension"), "does not verify")
    assert len(CHECKPOINT.body.split("\n")) == 4


def test_other_logs_keys_and_names_are_refused() -> None:
    refused(NOTE, "no signature by key", origin="example.org/other")
    refused(NOTE, "no signature by key", public_key=OTHER.public_key().public_bytes_raw())
    refused(note_over(CHECKPOINT.body, key=OTHER), "no signature by key")
    refused(note_over(CHECKPOINT.body.replace(ORIGIN, "example.org/other")), "of another log")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (f"{ORIGIN}\n1234\n", "not origin, size, root"),
        (f"{ORIGIN}\n01234\nICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=\n", "tree size"),
        (f"{ORIGIN}\n-1\nICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=\n", "tree size"),
        (f"{ORIGIN}\n+1\nICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=\n", "tree size"),
        (f"{ORIGIN}\n١\nICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=\n", "tree size"),
        (f"{ORIGIN}\n18446744073709551616\nICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=\n", "tree size"),
        (f"{ORIGIN}\n1234\nICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8\n", "root"),
        (f"{ORIGIN}\n1234\nICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj9=\n", "root"),
        (f"{ORIGIN}\n1234\nICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pg==\n", "root"),
        (f"{ORIGIN}\n1234\nICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=\n\nlater\n", "not origin, size, root"),
    ],
)
def test_a_signed_text_in_another_form_is_refused(body: str, reason: str) -> None:
    refused(note_over(body), reason)


@pytest.mark.parametrize(
    ("note", "reason"),
    [
        ("", "no blank line"),
        (CHECKPOINT.body, "no blank line"),
        (CHECKPOINT.body + "\n", "last line"),
        (NOTE[:-1], "last line"),
        (NOTE + "\n", "last line"),
        (NOTE.replace("— ", "- "), "signature line is malformed"),
        (NOTE.replace("— ", "—  "), "signature line is malformed"),
        (NOTE + "— witness.example\n", "signature line is malformed"),
        (NOTE + "— witness.example AAAA\n", "signature line is malformed"),
        (NOTE + "— witness+example AAAAAAAA\n", "signature line is malformed"),
        (NOTE + "— witness\u00a0example AAAAAAAA\n", "signature line is malformed"),
        (NOTE + "— witness.example AAAAAAB=\n", "signature line is malformed"),
        (NOTE + "— witness.example AAAA-_AA\n", "signature line is malformed"),
        (NOTE.replace("\n", "\r\n"), "control character"),
        (b"\xff" + NOTE.encode(), "UTF-8"),
        (NOTE + f"— witness.example {'AAAA' * 250_000}\n", "more than 1000000"),
        ("\ud800", "UTF-8"),
    ],
)
def test_a_malformed_note_is_refused(note: str | bytes, reason: str) -> None:
    refused(note, reason)


@pytest.mark.parametrize("origin", ["", "two words", "a+b", "line\nbreak", "nbsp\u00a0", "tab\t"])
def test_an_origin_that_cannot_name_a_key_is_refused(origin: str) -> None:
    with pytest.raises(FixInput, match="origin"):
        Checkpoint(origin, 0, bytes(32))


def test_sizes_and_roots_are_bounded() -> None:
    for size in (-1, 1 << 64):
        with pytest.raises(FixInput, match="does not exist"):
            Checkpoint(ORIGIN, size, bytes(32))
    with pytest.raises(FixInput, match="32 bytes"):
        Checkpoint(ORIGIN, 0, bytes(31))


def test_a_signer_with_another_key_is_caught_before_the_note_leaves() -> None:
    with pytest.raises(EvidenceInvalid, match="does not verify"):
        sign(CHECKPOINT, PUBLIC, OTHER.sign)
