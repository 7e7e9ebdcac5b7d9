"""Devices of a site: request, approve, list, rotate, retire, revoke."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ledger.core.certificates import Certificate, Device, Holder, Person
from ledger.core.errors import FixInput, NeedPermission
from ledger.core.records import Approval, Role
from ledger.core.trust import DeviceNotice, KeyNotice
from ledger.keys import authority, signers
from ledger.keys.signers import Curve, Signer
from ledger.wiring import assembly, hardware
from ledger.wiring import site as sites
from ledger.wiring.custody import enrolment_target, revocation_target
from ledger.wiring.hardware import OnToken
from ledger.wiring.site import EYES, Site

BLOCK_WAIT_S = 60.0
"""How long a revocation waits for the chain's next block."""

if TYPE_CHECKING:
    from ledger.chain import Ledger


def request_device(
    folder: Path | None, name: str, curve: Curve, holder: Callable[[str], Holder], on_token: OnToken | None = None
) -> dict[str, Any]:
    """Makes a device's or person's key, on a token where one is given, and its certificate request; `holder` is called with
    the site's name."""
    site = sites.open_site(folder)
    described = holder(site.name)
    if isinstance(described, Device):
        for label, value in zip(("manufacturer", "model", "serial"), described.parts, strict=True):
            if not value.strip():
                raise FixInput(f"--{label} is empty: a device is named by manufacturer, model and serial, a person by --person")
        if not described.ae_title.strip():
            raise FixInput("--ae is empty: a device's certificate bears its AE title")
    elif not described.printed_name.strip() or not described.printed_name.isprintable():
        raise FixInput("--person is the printed name of a person, in one line")
    signer, said = _request(site, name, described, curve, on_token)
    return {"name": name, "key": "0x" + signer.key.hex(), "request": str(site.request_path(name))} | said


def roles_named(text: str) -> Role:
    """Roles by their names, comma separated. Raises FixInput."""
    roles = Role(0)
    for part in text.split(","):
        name = part.strip().upper()
        if name not in Role.__members__:
            raise FixInput(f"no role {part.strip()!r}: use {', '.join(str(role.name).lower() for role in Role)}")
        roles |= Role[name]
    return roles


def approve_device(folder: Path | None, request: Path, roles: Role, since: int | None) -> dict[str, Any]:
    """Issues the certificate of a request and enrols its key; repeated, it says what is there."""
    site = _registrar(folder)
    path = request if request.suffix == ".csr" else site.request_path(str(request))
    name = sites.device_name(path.stem)
    passphrase = site.passphrase()
    parsed, holder = _read_request(path)
    certificate_path = site.certificate_path(name)
    if certificate_path.exists():
        certificate = sites.read_certificate(certificate_path)
        if certificate.x509.public_key() != parsed.public_key():
            raise FixInput(f"{name} is the name of another key here: give the request file another name, such as b-{name}.csr")
    else:
        issuer = authority.load_authority(site.ca_folder, passphrase)
        certificate = issuer.issue(parsed.public_bytes(Encoding.DER), datetime.now(UTC))
        sites.write_text(certificate_path, certificate.x509.public_bytes(Encoding.PEM).decode())
    chain = _chain(site, passphrase)
    known = chain.key_state(certificate.key)
    if known.retired_at or known.compromised_since:
        raise FixInput(f"the key of {name} is retired or revoked, for good: make another with `scanseal device request`")
    if not any(known.certificate):
        target = enrolment_target(certificate.key, certificate.fingerprint, roles)
        _require_approvals(site, chain, "enrolment", target, f"enrol:{name}:{roles.words.replace(', ', ',')}")
        chain.enrol(certificate.key, certificate.fingerprint, holder.id, roles)
    if since is not None:
        if not isinstance(holder, Device):
            raise FixInput(f"{name} is a person: only a device can seal everything it makes")
        chain.set_seals_everything_since(holder.id, since)
        _note_device(site, holder, since)
    state = chain.key_state(certificate.key)
    return {
        "name": name,
        "device": holder.name,
        "key": "0x" + certificate.key.hex(),
        "roles": state.roles.words,
        "certificate": str(certificate_path),
    }


def list_devices(folder: Path | None) -> list[dict[str, Any]]:
    """Every key of the registry, with the names that this site knows."""
    site = sites.open_site(folder)
    known = {certificate.key: (name, certificate) for name, certificate in site.certificates().items()}
    rows = []
    for enrolled in _chain(site, None).enrolled():
        name, certificate = known.get(enrolled.key, (None, None))
        state = enrolled.state
        rows.append(
            {
                "name": name,
                "device": certificate.holder().name if certificate else "0x" + enrolled.device.hex(),
                "key": "0x" + enrolled.key.hex(),
                "roles": state.roles.words,
                "enrolled_at": state.enrolled_at,
                "retired_at": state.retired_at,
                "compromised_since": state.compromised_since,
                "seals_everything_since": enrolled.seals_everything_since,
            }
        )
    return rows


def rotate_device(
    folder: Path | None, name: str, new_name: str, curve: Curve, on_token: OnToken | None = None
) -> dict[str, Any]:
    """Retires a key and enrols a new one for the same device, after everything the old one sealed is anchored.

    A key in hardware is followed by one on the same token, where none is given.
    """
    site = _registrar(folder)
    passphrase = site.passphrase()
    old = _certificate(site, name)
    _refuse_while_queued(site, name, old)
    _request(site, new_name, old.device(), curve, on_token or hardware.beside(site, name))
    issuer = authority.load_authority(site.ca_folder, passphrase)
    certificate = issuer.issue(_read_request(site.request_path(new_name))[0].public_bytes(Encoding.DER), datetime.now(UTC))
    sites.write_text(site.certificate_path(new_name), certificate.x509.public_bytes(Encoding.PEM).decode())
    block = _chain(site, passphrase).rotate(old.key, certificate.key, certificate.fingerprint, old.device().id).block_number
    _note_key(site, old.key, retired_at=int(time.time()))
    return {"what": "rotated", "name": f"{name} to {new_name}", "key": "0x" + certificate.key.hex(), "block": block}


def retire_device(folder: Path | None, name: str) -> dict[str, Any]:
    site = _registrar(folder)
    certificate = _certificate(site, name)
    _refuse_while_queued(site, name, certificate)
    block = _chain(site, site.passphrase()).retire(certificate.key).block_number
    return {"what": "retired", "name": name, "key": "0x" + certificate.key.hex(), "block": block}


def revoke_device(folder: Path | None, name: str, compromised_since: int | None) -> dict[str, Any]:
    """Declares a key compromised since a time; None is now, which is after all that is on chain already: a devnet's blocks run
    ahead of the clock."""
    site = _registrar(folder)
    key = bytes.fromhex(name[2:]) if name.startswith("0x") and len(name) == 66 else _certificate(site, name).key
    chain = _chain(site, site.passphrase())
    _require_approvals(site, chain, "revocation", revocation_target(key), f"revoke:{name}")
    if compromised_since is None:
        compromised_since = max(int(time.time()), _chain_time(chain) + 1)
        _wait_for_block(site, chain, compromised_since)
    block = chain.revoke(key, compromised_since).block_number
    _note_key(site, key, compromised_since=chain.key_state(key).compromised_since)
    return {"what": "revoked", "name": name, "key": "0x" + key.hex(), "block": block, "compromised_since": compromised_since}


def _chain_time(chain: Ledger) -> int:
    newest = chain.heights().included
    return chain.blocks([newest])[newest].header.timestamp


def _wait_for_block(site: Site, chain: Ledger, until: int) -> None:
    """Until the chain's own time is there: the contract takes no date that is ahead of it."""
    from ledger.wiring.chain import let_time_pass

    deadline = time.monotonic() + BLOCK_WAIT_S
    while _chain_time(chain) < until and time.monotonic() < deadline:
        let_time_pass(site)
        time.sleep(0.2)


def certified(site: Site, name: str) -> Certificate:
    """The certificate of a key of this site. Raises FixInput."""
    return _certificate(site, name)


def _require_approvals(site: Site, chain: Ledger, what: str, target: bytes, named: str) -> None:
    """Four eyes, where the site asks for them. Raises NeedPermission saying what is missing.

    While fewer than two persons may approve, nobody could: the first two are enrolled without.
    """
    if what not in site.four_eyes:
        return
    may = {
        certificate.key: holder.printed_name
        for certificate in site.certificates().values()
        if isinstance(holder := certificate.holder(), Person) and _may_approve(chain, certificate)
    }
    if len(set(may.values())) < EYES:
        return
    with assembly.opened(site, read_only=True) as opened:
        records = [stored.signed.record for stored in opened.journal.following([target])]
    names = {may[record.key] for record in records if isinstance(record, Approval) and record.key in may}
    if len(names) < EYES:
        raise NeedPermission(
            f"this site asks for {EYES} persons at an {what}, {len(names)} signed: "
            f"`scanseal esign {named} --as PERSON --meaning approved`"
        )


def _may_approve(chain: Ledger, certificate: Certificate) -> bool:
    state = chain.key_state(certificate.key)
    in_order = state.certificate == certificate.fingerprint and not state.retired_at and not state.compromised_since
    return in_order and Role.APPROVE in state.roles


def _registrar(folder: Path | None) -> Site:
    """A site that looks after keys on chain. Raises FixInput for one whose node does."""
    site = sites.open_site(folder)
    if site.node is not None:
        raise FixInput(
            f"keys of this site are looked after at {site.node.url}: send its operator the request (devices/NAME.csr), or say "
            "what is to be done with which key; `scanseal device adopt` takes over the certificate that comes back"
        )
    return site


def _chain(site: Site, passphrase: str | None) -> Ledger:
    from ledger.wiring.chain import connect

    account = None if passphrase is None else signers.load_account(site.account_path, passphrase)
    return connect(site.rpc, site.trust(), account)


def _certificate(site: Site, name: str) -> Certificate:
    path = site.certificate_path(name)
    if not path.exists():
        raise FixInput(f"no device {name!r} here: `scanseal device list` shows them")
    return sites.read_certificate(path)


def _request(
    site: Site, name: str, holder: Holder, curve: Curve, on_token: OnToken | None = None
) -> tuple[Signer, dict[str, Any]]:
    """A new key of this name and its request, both written, with what is to be said of the key.

    A key file is written only after its key has signed the request.
    """
    path = site.folder / "keys" / sites.device_name(name)
    if site.has_key(name):
        raise FixInput(f"device {name!r} has a key here already: take another name, or `scanseal device rotate {name} NEW`")
    said: dict[str, Any] = {}
    signer: Signer
    if on_token is None:
        software = signers.new_key(curve)
        request = authority.request(holder, software)
        signers.save(software, path, site.passphrase())
        signer = software
    else:
        from ledger.keys import pkcs11

        inside, never_outside = on_token.key(name, curve)
        request = authority.request(holder, inside)
        pkcs11.save(inside, path)
        signer, said = inside, {"token": on_token.token, "never_outside": never_outside}
    pem = x509.load_der_x509_csr(request).public_bytes(Encoding.PEM)
    sites.write_text(site.request_path(name), pem.decode())
    return signer, said


def _read_request(path: Path) -> tuple[x509.CertificateSigningRequest, Holder]:
    try:
        der = x509.load_pem_x509_csr(path.read_bytes()).public_bytes(Encoding.DER)
    except FileNotFoundError as error:
        raise FixInput(f"{path}: no such request; `scanseal device request` makes one") from error
    except (OSError, ValueError) as error:
        raise FixInput(f"{path}: not a certificate request in PEM") from error
    return authority.read_request(der)


def _refuse_while_queued(site: Site, name: str, certificate: Certificate) -> None:
    with assembly.opened(site, read_only=True) as opened:
        waiting = opened.journal.unanchored_of(certificate.key, opened.anchors.final_size())
    if waiting:
        raise FixInput(
            f"{waiting} seals of {name} are not final on chain yet: run `scanseal anchor` first, or they would be REVOKED"
        )


def _note_device(site: Site, device: Device, since: int) -> None:
    trust = site.trust()
    others = tuple(notice for notice in trust.devices if notice.device != device.id)
    notice = DeviceNotice(device=device.id, name=device.name, seals_everything_since=since)
    sites.write_trust(site.trust_path, trust.model_copy(update={"devices": (*others, notice)}))


def _note_key(site: Site, key: bytes, *, retired_at: int = 0, compromised_since: int = 0) -> None:
    trust = site.trust()
    known = next((notice for notice in trust.keys if notice.key == key), KeyNotice(key=key))
    notice = known.model_copy(
        update={
            "retired_at": known.retired_at or retired_at,
            "compromised_since": compromised_since or known.compromised_since,
        }
    )
    others = tuple(other for other in trust.keys if other.key != key)
    sites.write_trust(site.trust_path, trust.model_copy(update={"keys": (*others, notice)}))
