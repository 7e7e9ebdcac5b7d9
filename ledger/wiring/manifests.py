"""Manifests of a site as files: written with their record, found again, described."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from ledger.core import manifest
from ledger.core.errors import FixInput
from ledger.core.manifest import Digest, Entry, Header, Reader
from ledger.core.records import ManifestRecord
from ledger.register import Claim, Receipt
from ledger.store.records import RecordReader, StoredRecord
from ledger.wiring.export import replace
from ledger.wiring.sealing import Signing

MANIFEST: Final = "manifest.jsonl"
"""In the folder that is sent."""


def sign(signing: Signing, path: Path, header: Header, entries: Iterable[Entry]) -> tuple[Digest, Receipt]:
    """Writes a manifest and signs its record: the file first, under another name, so that no signed list is ever lost."""
    written = BytesIO()
    digest = manifest.write(header, entries, written)
    draft = path.with_suffix(".signing")
    replace(draft, written.getvalue())
    receipt = sign_digest(signing, digest)
    draft.replace(path)
    return digest, receipt


def sign_digest(signing: Signing, digest: Digest) -> Receipt:
    """The ManifestRecord of a list; the record that is there already, where this key signed the very same one."""
    signing.require(ManifestRecord.ROLES)
    known = _record_of(signing.journal, digest, signing.sealer.key)
    if known is not None:
        return Receipt(known.record_id, known.signed.record.counter, is_new=False)
    own = {"kind": digest.kind, "count": digest.count}
    claims = [Claim(digest.content, manifest.PROFILE, own)]
    return signing.sealer.state(ManifestRecord, claims, signing.beacon, signing.beacon_time)[0]


def read_digest(path: Path) -> tuple[Header, Digest]:
    """A manifest's header and digest, after reading all of it. Raises FixInput, EvidenceInvalid."""
    try:
        with path.open("rb") as file:
            reader = Reader(file)
            for _ in reader:
                pass
            return reader.header, reader.digest
    except OSError as error:
        raise FixInput(f"{path}: cannot be read ({error.strerror})") from error


def manifest_path(named: Path) -> Path:
    """A manifest by its file, or by the folder of its transmittal. Raises FixInput."""
    path = named / MANIFEST if named.is_dir() else named
    if not path.is_file():
        raise FixInput(f"{path}: no such manifest")
    return path


def manifest_record(records: RecordReader, path: Path) -> bytes:
    """The id of a manifest's record in this site's store. Raises FixInput for a list that nobody signed here."""
    stored = _record_of(records, read_digest(path)[1])
    if stored is None:
        raise FixInput(f"{path.name}: no key of this site signed this list: `scanseal transmittal sign` first")
    return stored.record_id


def stored_manifest(records: RecordReader, digest: Digest) -> StoredRecord | None:
    """The record of a list in this site's store."""
    return _record_of(records, digest)


def _record_of(records: RecordReader, digest: Digest, key: bytes | None = None) -> StoredRecord | None:
    for stored in records.with_content(digest.content):
        record = stored.signed.record
        if isinstance(record, ManifestRecord) and digest.is_of(record) and key in (None, record.key):
            return stored
    return None


def described(header: Header, digest: Digest) -> dict[str, Any]:
    """A manifest for people and programs."""
    return {
        "kind": header.kind,
        "trial": header.trial,
        "site": header.site,
        "subject": header.subject,
        "visit": header.visit,
        "entries": digest.count,
        "content": "0x" + digest.content.hex(),
    }
