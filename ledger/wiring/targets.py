"""What a person signs: an image's newest record, a manifest's, any record by its id, or an act of administration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ledger.core.errors import FixInput
from ledger.wiring.custody import Custody, enrolment_target, revocation_target
from ledger.wiring.site import Site

if TYPE_CHECKING:
    from ledger.wiring.sealing import Signing


def target_id(site: Site, ready: Signing, custody: Custody, target: str) -> tuple[bytes, str]:
    """(what an Approval's content is, the same in words). Raises FixInput."""
    kind, _, rest = target.partition(":")
    if kind in ("enrol", "revoke") and rest:
        return administration_target(site, kind, rest)
    if target.startswith("0x"):
        return _known(ready, target), f"record {target}"
    path = Path(target)
    if not path.is_file():
        raise FixInput(f"{target}: no such image, manifest or record")
    if path.suffix == ".jsonl":
        from ledger.wiring.manifests import manifest_record

        return manifest_record(ready.journal, path), f"the manifest {path.name}"
    from ledger.dicom import read

    return custody.newest(read(path)), f"the image {path.name}"


def administration_target(site: Site, kind: str, rest: str) -> tuple[bytes, str]:
    """What persons approve before a key is enrolled or revoked: `NAME:ROLES`, or `NAME`."""
    from ledger.wiring.assembly_custody import key_named
    from ledger.wiring.devices import certified, roles_named

    if kind == "revoke":
        return revocation_target(key_named(site, rest)), f"the revocation of {rest}"
    name, _, roles = rest.partition(":")
    certificate = certified(site, name)
    granted = roles_named(roles or "acquire")
    return enrolment_target(certificate.key, certificate.fingerprint, granted), f"the enrolment of {name} ({granted.words})"


def _known(ready: Signing, target: str) -> bytes:
    try:
        record_id = bytes.fromhex(target[2:])
    except ValueError:
        record_id = b""
    if len(record_id) != 32 or not ready.journal.by_id([record_id]):
        raise FixInput(f"{target}: no record of this site has this id")
    return record_id
