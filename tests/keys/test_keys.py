"""Keys and certificates, checked against the openssl command."""

import os
import subprocess
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from ledger.core import certificates, signatures
from ledger.core.certificates import Device
from ledger.core.errors import EvidenceInvalid, FixInput
from ledger.keys import authority, signers

DEVICE = Device("Acme & Söhne", "CT 3000/x", "S=4?2", "CT1", "Site Ä")
NOW = datetime(2026, 1, 31, tzinfo=UTC)
CURVES = ("secp256k1", "p256")


def openssl(*arguments: str, given: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=given, capture_output=True, check=True).stdout


@pytest.mark.parametrize("curve", CURVES)
def test_openssl_accepts_our_signatures(curve, tmp_path):
    signer = signers.new_key(curve)
    digest = os.urandom(32)
    signature = signer.sign(digest)
    der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    (tmp_path / "key.der").write_bytes(signer.public_key_der)
    (tmp_path / "signature").write_bytes(der)
    arguments = ("pkeyutl", "-verify", "-pubin", "-inkey", str(tmp_path / "key.der"), "-keyform", "DER")
    assert b"Verified Successfully" in openssl(*arguments, "-sigfile", str(tmp_path / "signature"), given=digest)


@pytest.mark.parametrize("curve", CURVES)
def test_we_accept_a_signature_by_openssl_once_s_is_low(curve, tmp_path):
    signer = signers.new_key(curve)
    pem = signer.private_key.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    digest = os.urandom(32)
    der = openssl("pkeyutl", "-sign", "-inkey", str(tmp_path / "key.pem"), given=digest)
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    r, s = decode_dss_signature(der)
    name = signer.private_key.curve.name
    low = signatures.low_s(name, r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    signatures.check(signer.public_key_der, digest, low)
    high = low[:32] + (signatures.ORDERS[name] - int.from_bytes(low[32:], "big")).to_bytes(32, "big")
    with pytest.raises(EvidenceInvalid, match="low s"):
        signatures.check(signer.public_key_der, digest, high)


@pytest.mark.parametrize("curve", CURVES)
def test_any_flipped_bit_of_a_signature_or_digest_is_refused(curve):
    signer = signers.new_key(curve)
    digest = os.urandom(32)
    signature = signer.sign(digest)
    for position in range(0, 512, 7):
        flipped = bytearray(signature)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(EvidenceInvalid):
            signatures.check(signer.public_key_der, digest, bytes(flipped))
    for wrong in (signature[:-1], signature + b"\0", bytes(64), b""):
        with pytest.raises(EvidenceInvalid):
            signatures.check(signer.public_key_der, digest, wrong)
    with pytest.raises(EvidenceInvalid):
        signatures.check(signer.public_key_der, bytes([digest[0] ^ 1]) + digest[1:], signature)


@pytest.mark.parametrize("curve", CURVES)
def test_openssl_accepts_our_certificates(curve, tmp_path):
    site = authority.new_authority("Site Ä", NOW)
    signer = signers.new_key(curve)
    certificate = site.issue(authority.request(DEVICE, signer), NOW)
    (tmp_path / "ca.pem").write_text(site.pem)
    (tmp_path / "device.pem").write_bytes(certificate.x509.public_bytes(Encoding.PEM))
    when = str(int(NOW.timestamp()))
    said = openssl("verify", "-attime", when, "-CAfile", str(tmp_path / "ca.pem"), str(tmp_path / "device.pem"))
    assert said.strip().endswith(b": OK")
    assert certificate.device() == DEVICE
    assert certificate.key == signer.key
    assert certificate.is_issued_by(certificates.parse(site.x509.public_bytes(Encoding.DER)))
    stranger = authority.new_authority("Site Ä", NOW)
    assert not certificate.is_issued_by(certificates.parse(stranger.x509.public_bytes(Encoding.DER)))


def test_a_device_certificate_issues_nothing():
    site = authority.new_authority("Site", NOW)
    signer = signers.new_key("p256")
    device = site.issue(authority.request(DEVICE, signer), NOW)
    rogue = authority.Authority(device.x509, signer.private_key)
    forged = rogue.issue(authority.request(DEVICE, signers.new_key("p256")), NOW)
    assert not forged.is_issued_by(device)


def test_a_request_that_its_key_did_not_sign_is_refused():
    request = bytearray(authority.request(DEVICE, signers.new_key("p256")))
    request[-1] ^= 1
    with pytest.raises(FixInput):
        authority.read_request(bytes(request))
    with pytest.raises(FixInput):
        authority.read_request(b"no request")


@pytest.mark.parametrize("curve", CURVES)
def test_a_key_file_needs_its_passphrase_and_is_never_overwritten(curve, tmp_path):
    signer = signers.new_key(curve)
    path = signers.save(signer, tmp_path / "ct1", "right")
    assert path.stat().st_mode & 0o077 == 0
    assert signers.load(path, "right").key == signer.key
    with pytest.raises(FixInput, match="passphrase"):
        signers.load(path, "wrong")
    with pytest.raises(FixInput, match="never overwritten"):
        signers.save(signers.new_key(curve), tmp_path / "ct1", "right")
    path.write_bytes(b"{}")
    with pytest.raises(FixInput):
        signers.load(path, "right")
