"""The site's certificate authority: issues the X.509 certificates that name devices and persons. FORMAT.md §6."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import Buffer
from cryptography.x509.oid import NameOID

from ledger.core import certificates
from ledger.core.certificates import Certificate, Holder, Person
from ledger.core.errors import FixInput, Stop
from ledger.keys.signers import Signer, load_pem, write_secret

CA_YEARS = 20
DEVICE_YEARS = 12


class Authority:
    """A certificate authority with its key in memory."""

    def __init__(self, certificate: x509.Certificate, private_key: ec.EllipticCurvePrivateKey) -> None:
        self.x509, self._private_key = certificate, private_key

    @property
    def pem(self) -> str:
        return self.x509.public_bytes(Encoding.PEM).decode()

    def issue(self, request_der: bytes, now: datetime) -> Certificate:
        """A certificate for a request (PKCS#10) whose own signature holds. Raises FixInput."""
        request, holder = read_request(request_der)
        return certificates.parse(
            self._builder(_subject(holder), request.public_key(), now, DEVICE_YEARS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign=True), critical=True)
            .add_extension(_name(holder), critical=False)
            .sign(self._private_key, hashes.SHA256())
            .public_bytes(Encoding.DER)
        )

    def _builder(self, subject: x509.Name, public_key: object, now: datetime, years: int) -> x509.CertificateBuilder:
        return _builder(self.x509.subject, subject, public_key, now, years)


def _builder(issuer: x509.Name, subject: x509.Name, public_key: object, now: datetime, years: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(public_key)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365 * years))
    )


def new_authority(site: str, now: datetime) -> Authority:
    """A fresh, self-signed P-256 authority for a site."""
    private_key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, site), x509.NameAttribute(NameOID.COMMON_NAME, "ScanSeal device CA")]
    )
    certificate = (
        _builder(name, name, private_key.public_key(), now, CA_YEARS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign=False), critical=True)
        .sign(private_key, hashes.SHA256())
    )
    return Authority(certificate, private_key)


def save_authority(authority: Authority, folder: Path, passphrase: str) -> None:
    """Writes `ca.key` (encrypted) and `ca.pem` to a folder, never over existing files."""
    key = authority._private_key.private_bytes(
        Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(passphrase.encode())
    )
    write_secret(folder / "ca.key", key)
    write_secret(folder / "ca.pem", authority.pem.encode())


def load_authority(folder: Path, passphrase: str) -> Authority:
    """The authority of a folder. Raises FixInput where a file or the passphrase is wrong."""
    private_key = load_pem(folder / "ca.key", passphrase)
    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    except (OSError, ValueError) as error:
        raise FixInput(f"{folder / 'ca.pem'}: not a certificate") from error
    if not isinstance(private_key, ec.EllipticCurvePrivateKey) or private_key.public_key() != certificate.public_key():
        raise FixInput(f"{folder}: ca.key does not belong to ca.pem")
    return Authority(certificate, private_key)


def request(holder: Holder, signer: Signer) -> bytes:
    """A certificate request (PKCS#10, DER) for a device or person, signed by its key: proof that the requester has it."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_subject(holder))
        .add_extension(_name(holder), critical=False)
        .sign(_Requester(signer), hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


class _Requester(ec.EllipticCurvePrivateKey):
    """A signer as `cryptography` wants a private key: it signs a request, wherever the key is, and has nothing to give away."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._public = serialization.load_der_public_key(signer.public_key_der)

    def sign(self, data: Buffer, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:  # noqa: ARG002
        signature = self._signer.sign(hashlib.sha256(data).digest())
        return encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))

    def public_key(self) -> ec.EllipticCurvePublicKey:
        if not isinstance(self._public, ec.EllipticCurvePublicKey):
            raise FixInput("a request is signed by an elliptic curve key")
        return self._public

    @property
    def curve(self) -> ec.EllipticCurve:
        return self.public_key().curve

    @property
    def key_size(self) -> int:
        return self.curve.key_size

    def exchange(self, *_: object, **__: object) -> bytes:
        raise Stop("a device's key signs and does nothing else")

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        raise Stop("a device's key is not given away")

    def private_bytes(self, *_: object, **__: object) -> bytes:
        raise Stop("a device's key is not given away")

    def __copy__(self) -> _Requester:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> _Requester:
        return self


def read_request(der: bytes) -> tuple[x509.CertificateSigningRequest, Holder]:
    """A request and whom it names, after checking its signature. Raises FixInput."""
    try:
        parsed = x509.load_der_x509_csr(der)
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        valid = parsed.is_signature_valid
    except (InvalidSignature, x509.ExtensionNotFound, *certificates.MALFORMED) as error:
        raise FixInput("the request is not a PKCS#10 request that names a device or a person") from error
    if not valid:
        raise FixInput("the request is not signed by the key that it asks a certificate for")
    return parsed, certificates.holder_of(names)


def new_log_key(path: Path, passphrase: str) -> ed25519.Ed25519PrivateKey:
    """A fresh Ed25519 key for a log's checkpoints, written encrypted to `path`."""
    private_key = ed25519.Ed25519PrivateKey.generate()
    pem = private_key.private_bytes(
        Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(passphrase.encode())
    )
    write_secret(path, pem)
    return private_key


def load_log_key(path: Path, passphrase: str) -> ed25519.Ed25519PrivateKey:
    private_key = load_pem(path, passphrase)
    if not isinstance(private_key, ed25519.Ed25519PrivateKey):
        raise FixInput(f"{path}: not an Ed25519 key")
    return private_key


def log_public_key(private_key: ed25519.Ed25519PrivateKey) -> bytes:
    """The 32 raw bytes of the public key."""
    return private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _subject(holder: Holder) -> x509.Name:
    if isinstance(holder, Person):
        named = [x509.NameAttribute(NameOID.COMMON_NAME, holder.printed_name)]
    else:
        named = [
            x509.NameAttribute(NameOID.COMMON_NAME, holder.ae_title),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, holder.serial),
        ]
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, holder.site), *named])


def _name(holder: Holder) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(holder.uri())])


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not sign,
        crl_sign=not sign,
        encipher_only=False,
        decipher_only=False,
    )
