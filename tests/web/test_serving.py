"""`scanseal serve` as a process: TLS, who may reach it, one a site, and an end that loses nothing. No chain is needed."""

from __future__ import annotations

import ipaddress
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ledger.cli.node import serve
from ledger.core.checkpoint import parse_and_verify
from ledger.core.errors import FixInput, NeedPermission, TryLater
from ledger.core.trust import TrustedLog
from ledger.keys import authority
from ledger.node.client import NodeClient
from ledger.wiring import site as sites
from tests.journeys.conftest import free_port
from tests.web.nodes import CA, trust


class Issuer:
    """An authority for TLS, and what it issues, in files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.path = folder / f"{name}.pem"
        builder = self._builder(self.name, self.key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.path.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def issue(self, name: str, address: str = "127.0.0.1", passphrase: bytes | None = None) -> tuple[Path, Path]:
        """(certificate, key)"""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        named = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = self._builder(subject, key).add_extension(named, critical=False).add_extension(usages, critical=False)
        certificate, private = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        certificate.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM))
        hidden = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))
        return certificate, private

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(datetime.now(UTC) - timedelta(days=1))
        builder = builder.not_valid_after(datetime.now(UTC) + timedelta(days=1))
        known = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return builder.add_extension(known, critical=False).add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> sites.Site:
    """A node's site whose chain is out of reach."""
    folder = tmp_path_factory.mktemp("node") / "site"
    folder.mkdir()
    made = sites.create(folder, "Node", ("http://127.0.0.1:9",), keep_passphrase=True)
    key = authority.log_public_key(authority.load_log_key(made.log_key_path, made.passphrase()))
    log = TrustedLog(origin=made.origin, log_id=bytes(32), key=key)
    sites.write_trust(made.trust_path, trust(CA).model_copy(update={"logs": (log,)}))
    return made


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("tls"), "hospital")


def command(site: sites.Site, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "ledger.cli", "serve", "--site", str(site.folder), *map(str, arguments)]


@contextmanager
def serving(site: sites.Site, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], int]]:
    port = free_port()
    process = subprocess.Popen(
        command(site, "--listen", f"127.0.0.1:{port}", *arguments), stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stderr is not None
    try:
        assert '"serving"' in process.stderr.readline()
        time.sleep(0.3)
        yield process, port
    finally:
        process.kill()
        process.communicate(timeout=20)


def test_over_tls_only_those_with_a_certificate_of_the_named_authority_are_heard(
    site: sites.Site, issuer: Issuer, tmp_path: Path
) -> None:
    stranger = Issuer(tmp_path, "stranger")
    certificate, key = issuer.issue("node")
    shown = tuple(map(str, issuer.issue("site-b")))
    foreign = tuple(map(str, stranger.issue("elsewhere")))
    tls = ("--tls-cert", certificate, "--tls-key", key, "--client-ca", issuer.path)
    with serving(site, *tls) as (process, port):
        url = f"https://127.0.0.1:{port}"
        trusted = site.trust().logs[0]

        def ask(ca: Path, shows: tuple[str, ...] | None) -> str:
            pair = None if shows is None else (shows[0], shows[1])
            client = NodeClient(url, None, str(ca), shown=pair, sleep=lambda _: None)
            try:
                return client.checkpoint()
            finally:
                client.close()

        assert parse_and_verify(ask(issuer.path, shown), trusted.origin, trusted.key).size == 0
        for ca, shows in ((issuer.path, None), (issuer.path, foreign), (stranger.path, shown)):
            with pytest.raises(TryLater, match="out of reach"):
                ask(ca, shows)
        with pytest.raises(FixInput, match="no certificate with its key"):
            ask(issuer.path, (shown[0], foreign[1]))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_node_with_the_certificate_of_another_place_is_not_believed(site: sites.Site, issuer: Issuer) -> None:
    certificate, key = issuer.issue("other", address="10.0.0.1")
    with serving(site, "--tls-cert", certificate, "--tls-key", key) as (_, port):
        client = NodeClient(f"https://127.0.0.1:{port}", "secret-token", str(issuer.path), sleep=lambda _: None)
        with pytest.raises(TryLater, match="out of reach"):
            client.checkpoint()
        client.close()
        # One is enough for a site.
        second = command(site, "--listen", f"127.0.0.1:{free_port()}")
        done = subprocess.run(second, capture_output=True, text=True, timeout=60)
        assert (done.returncode, "another `scanseal serve` runs" in done.stderr) == (6, True)


def test_what_cannot_be_served_is_refused_with_a_reason(site: sites.Site, issuer: Issuer) -> None:
    certificate, key = issuer.issue("refused")
    _, other_key = issuer.issue("else")
    hidden = issuer.issue("hidden", passphrase=b"secret")
    taken = free_port()
    for given, reason in (
        ({"listen": f"0.0.0.0:{taken}"}, "can be reached by others"),
        ({"listen": "127.0.0.1"}, "HOST:PORT belongs here"),
        ({"listen": "127.0.0.1:99999"}, "HOST:PORT belongs here"),
        ({"tls_cert": certificate}, "go together"),
        ({"client_ca": issuer.path}, "needs --tls-cert"),
        ({"tls_cert": certificate, "tls_key": other_key}, "the TLS files cannot be used"),
        ({"tls_cert": hidden[0], "tls_key": hidden[1]}, "the key is not encrypted"),
        ({"tls_cert": issuer.folder / "nothing", "tls_key": key}, "the TLS files cannot be used"),
    ):
        with pytest.raises((FixInput, NeedPermission), match=reason):
            serve(**given, site=site.folder)  # type: ignore[arg-type]
