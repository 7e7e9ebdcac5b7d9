"""Certificates: X.509 that names a device or a person, issued by a site's certificate authority. FORMAT.md §6.

The device stands in the subject (O = site, CN = AE title, serialNumber = DeviceSerialNumber) and, whole, in one subjectAltName
URI `urn:scanseal:device?Manufacturer=...&ManufacturerModelName=...&DeviceSerialNumber=...&AETitle=...&Site=...` (RFC 3986
percent-encoding). A person has `urn:scanseal:person?Name=...&Site=...` in its place.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import parse_qsl, quote

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ledger.core.errors import EvidenceInvalid
from ledger.core.signatures import key_id

MALFORMED = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What reading a certificate of strangers may raise."""
URN = "urn:scanseal:device?"
PERSON_URN = "urn:scanseal:person?"
_FIELDS = {
    "Manufacturer": "manufacturer",
    "ManufacturerModelName": "model",
    "DeviceSerialNumber": "serial",
    "AETitle": "ae_title",
    "Site": "site",
}


def device_id(manufacturer: str, model: str, serial: str) -> bytes:
    """The 32-byte name of a device on chain. It is a hash of three guessable values and hides nothing; it names no person."""
    return hashlib.sha256(b"\0".join(part.encode() for part in (manufacturer, model, serial))).digest()


@dataclass(frozen=True)
class Device:
    """What a certificate says that a key's holder is."""

    manufacturer: str
    model: str
    serial: str
    ae_title: str
    site: str

    @property
    def id(self) -> bytes:
        return device_id(*self.parts)

    @property
    def parts(self) -> tuple[str, str, str]:
        """Manufacturer, model, serial: what its id is made of."""
        return self.manufacturer, self.model, self.serial

    @property
    def name(self) -> str:
        """For people: `Acme Scanner 3000 (serial 42, CT1 at Site A)`."""
        return f"{self.manufacturer} {self.model} (serial {self.serial}, {self.ae_title} at {self.site})"

    def uri(self) -> str:
        fields = asdict(self)
        return URN + "&".join(f"{label}={quote(fields[field], safe='')}" for label, field in _FIELDS.items())


@dataclass(frozen=True)
class Person:
    """Who signs with a key of their own: printed name and site."""

    printed_name: str
    site: str

    @property
    def id(self) -> bytes:
        """The 32-byte name under which the registry keeps a person's keys together."""
        return hashlib.sha256("\0".join(("scanseal/person", self.printed_name, self.site)).encode()).digest()

    @property
    def name(self) -> str:
        return f"{self.printed_name} ({self.site})"

    def uri(self) -> str:
        return f"{PERSON_URN}Name={quote(self.printed_name, safe='')}&Site={quote(self.site, safe='')}"


Holder = Device | Person
"""Whom a certificate names."""


def holder_of(names: x509.SubjectAlternativeName) -> Holder:
    """The device or person that a subjectAltName names. Raises EvidenceInvalid (step certificate) where it names none."""
    for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
        for urn, labels, kind in ((URN, list(_FIELDS), Device), (PERSON_URN, ["Name", "Site"], Person)):
            pairs = parse_qsl(uri.removeprefix(urn), keep_blank_values=True)
            if uri.startswith(urn) and [label for label, _ in pairs] == labels:
                return kind(*(value for _, value in pairs))
    raise EvidenceInvalid("the certificate names no device and no person", "certificate")


@dataclass(frozen=True)
class Certificate:
    """A parsed certificate; `der` is what its fingerprint, enrolled on chain, is taken over."""

    der: bytes
    public_key_der: bytes
    x509: x509.Certificate

    @property
    def fingerprint(self) -> bytes:
        return hashlib.sha256(self.der).digest()

    @property
    def key(self) -> bytes:
        return key_id(self.public_key_der)

    def holder(self) -> Holder:
        """Whom it names. Raises EvidenceInvalid (step certificate) where it names nobody."""
        try:
            names = self.x509.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (x509.ExtensionNotFound, *MALFORMED) as error:
            raise EvidenceInvalid("the certificate names no device and no person", "certificate") from error
        return holder_of(names)

    def device(self) -> Device:
        """The device that it names. Raises EvidenceInvalid (step certificate) where it names none."""
        holder = self.holder()
        if not isinstance(holder, Device):
            raise EvidenceInvalid("the certificate names a person where a device belongs", "certificate")
        return holder

    def is_valid_at(self, time: int) -> bool:
        """Whether `time` (seconds since 1970) lies in the certificate's validity."""
        try:
            moment = datetime.fromtimestamp(time, UTC)
        except (OverflowError, ValueError, OSError):
            return False
        return self.x509.not_valid_before_utc <= moment <= self.x509.not_valid_after_utc

    def is_issued_by(self, authority: Certificate) -> bool:
        """Whether `authority`, a certificate authority, signed this certificate. Says nothing about times."""
        return _issued(self.der, authority.der)


@lru_cache(maxsize=1024)
def parse(der: bytes) -> Certificate:
    """A certificate from DER. Raises EvidenceInvalid (step certificate)."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        public_key_der = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except MALFORMED as error:
        raise EvidenceInvalid("the device certificate cannot be read", "certificate") from error
    return Certificate(der, public_key_der, certificate)


@lru_cache(maxsize=1024)
def _issued(der: bytes, authority_der: bytes) -> bool:
    certificate, authority = parse(der).x509, parse(authority_der).x509
    try:
        if not authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, x509.ExtensionNotFound, *MALFORMED):
        return False
    return True
