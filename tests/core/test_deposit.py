"""Deposits: found and opened by whoever has the image, by nobody else, and as FORMAT.md §12 says."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ledger.core.deposit import Deposit, secret_of
from ledger.core.errors import EvidenceInvalid, FixInput

DIGEST = "px1-sha256:" + "5e" * 32
IMAGE = {
    "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.1",
    "PatientID": "4711",
    "PatientName": "Müller^Anna",
    "PatientBirthDate": None,
    "StudyDate": "20260101",
}
NONCE = bytes(range(12))


def deposit(digest: str = DIGEST, **changes: str | None) -> Deposit:
    secret = secret_of(digest, IMAGE | changes)
    assert secret is not None
    return Deposit(secret)


def test_it_is_what_the_format_says() -> None:
    def framed(text: str) -> bytes:
        return b"\1" + len(text.encode()).to_bytes(4, "big") + text.encode()

    message = framed(DIGEST) + framed("1.2.826.0.1.3680043.8.498.1") + framed("4711") + framed("Müller^Anna") + b"\0"
    secret = hmac.new(b"scanseal/deposit", message, hashlib.sha256).digest()
    token, key = (hmac.new(secret, word, hashlib.sha256).digest() for word in (b"find", b"open"))
    assert deposit().token == token
    assert AESGCM(key).decrypt(NONCE, deposit().sealed(b"a bundle", NONCE)[12:], token) == b"a bundle"


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "px1-sha256:" + "5f" * 32},
        {"SOPInstanceUID": "1.2.3"},
        {"PatientID": "anon"},
        {"PatientID": None},
        {"PatientName": None},
        {"PatientBirthDate": "19700101"},
        {"PatientBirthDate": ""},
        {"PatientID": "4711\0", "PatientName": "Müller^Anna"},
    ],
)
def test_another_image_finds_and_opens_nothing(changes: dict[str, str | None]) -> None:
    other = deposit(**changes)  # type: ignore[arg-type]
    assert other.token != deposit().token
    with pytest.raises(EvidenceInvalid, match="does not open with this image"):
        other.opened(deposit().sealed(b"a bundle", NONCE))


def test_what_is_not_of_whom_the_image_is_may_change() -> None:
    assert deposit(StudyDate="20270101", AccessionNumber="9").token == deposit().token


@pytest.mark.parametrize("value", [None, ""])
def test_an_image_without_an_instance_has_no_deposit(value: str | None) -> None:
    assert secret_of(DIGEST, IMAGE | {"SOPInstanceUID": value}) is None


def test_a_deposit_that_was_touched_does_not_open() -> None:
    body = deposit().sealed(b"a bundle", NONCE)
    assert deposit().opened(body) == b"a bundle"
    for position in range(len(body)):
        touched = bytes([*body[:position], body[position] ^ 1, *body[position + 1 :]])
        with pytest.raises(EvidenceInvalid):
            deposit().opened(touched)
    for size in range(len(body)):
        with pytest.raises(EvidenceInvalid):
            deposit().opened(body[:size])
    with pytest.raises(FixInput):
        deposit().sealed(b"a bundle", b"short")


def test_nothing_of_it_is_shown() -> None:
    assert deposit().token.hex() not in repr(deposit())
    assert deposit().secret.hex() not in repr(deposit())
