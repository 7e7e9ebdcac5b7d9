"""A site's part of a trial: what it expects, what each visit contains, and the transmittals that leave it.

trials/NAME/trial.json      name, expected visits, the key of its look-up tokens
trials/NAME/visits/*.jsonl  one signed manifest a visit
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ledger.audit import expected
from ledger.audit.expected import ExpectedVisit
from ledger.core import content, evidence, manifest
from ledger.core.errors import FixInput, NeedPermission, Refused, Unreadable
from ledger.core.manifest import Account, Digest, Entry, Header, Origin, Reader
from ledger.core.records import ManifestRecord
from ledger.core.strict import from_b64, to_b64
from ledger.dicom import Image
from ledger.register import Claim, Receipt
from ledger.store.records import RecordReader, StoredRecord
from ledger.wiring.bundles import SUFFIX, Exporter
from ledger.wiring.custody import Holdings
from ledger.wiring.export import replace
from ledger.wiring.images import Found
from ledger.wiring.sealing import Signing
from ledger.wiring.site import EYES, Site, device_name, write_text

MANIFEST = "manifest.jsonl"
EVIDENCE_SIZE = 1024
"""Seals of one bundle of a transmittal."""


@dataclass(frozen=True)
class Trial:
    """A trial at this site."""

    folder: Path
    name: str
    expected: tuple[ExpectedVisit, ...]
    find_key: bytes
    """Makes the look-up tokens of all its manifests."""

    @property
    def visits(self) -> list[Path]:
        """The manifests of its visits, oldest first."""
        return sorted((self.folder / "visits").glob("*.jsonl"))


def new_trial(site: Site, name: str, protocol: Path | None) -> Trial:
    """Sets a trial up at a site. Raises FixInput where it exists."""
    folder = site.folder / "trials" / device_name(name)
    if (folder / "trial.json").exists():
        raise FixInput(f"the trial {name} exists here already: nothing was changed")
    visits = read_expected(protocol) if protocol else ()
    trial = Trial(folder, name, visits, secrets.token_bytes(32))
    plain = [
        {name: str(value) for name, value in vars(visit).items() if value is not None}
        | {"minimum_images": visit.minimum_images}
        for visit in visits
    ]
    (folder / "visits").mkdir(parents=True, exist_ok=True)
    values = {"name": name, "find_key": to_b64(trial.find_key), "expected": plain}
    write_text(folder / "trial.json", json.dumps(values, indent=2))
    return trial


def read_trial(site: Site, name: str) -> Trial:
    folder = site.folder / "trials" / device_name(name)
    try:
        value = json.loads((folder / "trial.json").read_text(encoding="utf-8"))
        rows = json.dumps(value["expected"]).encode()
        visits = expected.parse(rows, "trial.json") if value["expected"] else ()
        return Trial(folder, str(value["name"]), visits, from_b64(value["find_key"]))
    except FileNotFoundError as error:
        raise FixInput(f"no trial {name!r} here: `scanseal trial new {name}` first") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FixInput(f"{folder / 'trial.json'}: not a trial's file") from error


def read_expected(path: Path) -> tuple[ExpectedVisit, ...]:
    """The protocol's list of visits in a CSV or JSON file. Raises FixInput."""
    try:
        return expected.parse(path.read_bytes(), path.name)
    except OSError as error:
        raise FixInput(f"{path}: cannot be read ({error.strerror})") from error


# ---- a visit ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """A manifest that was drawn up and signed; `unaccounted` are counters that it leaves open, by device."""

    path: Path
    digest: Digest
    receipt: Receipt
    unaccounted: dict[str, list[int]]
    errors: tuple[tuple[str, str], ...] = ()


class Visits:
    """Draws up and signs the manifests of a site's visits."""

    def __init__(self, site: Site, trial: Trial, signing: Signing) -> None:
        self._site, self._trial, self._signing, self.warning = site, trial, signing, signing.warning
        self._holdings = Holdings(signing.journal)

    def draw(
        self,
        subject: str,
        visit: str,
        sent: Iterable[Found],
        withheld: Iterable[Found],
        *,
        reason: str | None,
        devices: Sequence[str],
        others: Callable[[str, list[int]], list[int]],
    ) -> Drawn:
        """The manifest of a visit: images that are sent, images that are not, or none.

        Accounts are drawn up for the keys that the images began with and for `devices`, each from where the trial's last one
        ended; `others` says of a device's unlisted counters which do not belong to the trial. Raises FixInput.
        """
        self._signing.require(ManifestRecord.ROLES)
        path = self._trial.folder / "visits" / f"{_file_name(subject)}_{_file_name(visit)}.jsonl"
        if path.exists():
            raise FixInput(f"this visit's manifest is signed already ({path.name}): a closed list is not opened again")
        find_key = self._trial.find_key
        entries: list[Entry] = []
        errors: list[tuple[str, str]] = []
        for status, images in (("sent", sent), ("withheld", withheld)):
            for found in images:
                try:
                    entries.append(self._entry(found.read(), find_key, subject, visit, status, reason))
                except Refused:
                    continue
                except (Unreadable, FixInput, NeedPermission) as error:
                    errors.append((found.path, str(error)))
        if errors:
            raise FixInput(f"{errors[0][0]}: {errors[0][1]}" + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""))
        if not entries:
            entries = [Entry(subject=subject, visit=visit, status="none", reason=reason)]
        accounts, unaccounted = self._accounts(subject, visit, entries, devices, others)
        header = Header(
            format=manifest.FORMAT,
            kind="visit",
            trial=self._trial.name,
            site=self._site.name,
            subject=subject,
            visit=visit,
            nonce=secrets.token_bytes(16),
            find_key=find_key,
            accounts=tuple(accounts),
        )
        digest, receipt = sign(self._signing, path, header, entries)
        return Drawn(path, digest, receipt, unaccounted)

    def _entry(self, image: Image, find_key: bytes, subject: str, visit: str, status: str, reason: str | None) -> Entry:
        read, stored = self._holdings.sealed(image)
        origin = self._origin(stored)
        finder = content.Finder(find_key)
        return Entry.model_validate(
            {
                "subject": subject,
                "visit": visit,
                "status": status,
                "record": stored.record_id,
                "find": finder.token(content.PIXELS, str(read.digest)) + finder.token("SOPInstanceUID", read.instance),
                "origin": Origin(key=origin.signed.record.key, counter=origin.signed.record.counter),
                "reason": reason if status == "withheld" else None,
            }
        )

    def _origin(self, stored: StoredRecord) -> StoredRecord:
        while stored.parents:
            stored = self._signing.journal.by_id([stored.parents[0]])[stored.parents[0]]
        return stored

    def _accounts(
        self,
        subject: str,
        visit: str,
        entries: Sequence[Entry],
        devices: Sequence[str],
        others: Callable[[str, list[int]], list[int]],
    ) -> tuple[list[Account], dict[str, list[int]]]:
        names = {certificate.key: name for name, certificate in self._site.certificates().items()}
        keys = {entry.origin.key for entry in entries if entry.origin}
        for name in devices:
            if name not in names.values():
                raise FixInput(f"no device {name!r} here: `scanseal device list` shows them")
            keys |= {key for key, known in names.items() if known == name}
        ends, listed = self._so_far()
        for entry in entries:
            if entry.origin:
                listed.setdefault(entry.origin.key, set()).add(entry.origin.counter)
        accounts: list[Account] = []
        unaccounted: dict[str, list[int]] = {}
        for key in sorted(keys):
            tail = self._signing.journal.tail(key)
            first = ends.get(key, -1) + 1
            if tail is None or tail[0] < first:
                continue
            name = names.get(key, "0x" + key.hex())
            open_counters = [one for one in range(first, tail[0] + 1) if one not in listed.get(key, set())]
            excluded = others(name, open_counters)
            accounts.append(Account(key=key, first=first, last=tail[0], others=tuple(excluded), subject=subject, visit=visit))
            left = [one for one in open_counters if one not in set(excluded)]
            if left:
                unaccounted[name] = left
        return accounts, unaccounted

    def _so_far(self) -> tuple[dict[bytes, int], dict[bytes, set[int]]]:
        """(key -> where the trial's accounts end, key -> counters that its manifests list)."""
        ends: dict[bytes, int] = {}
        listed: dict[bytes, set[int]] = {}
        for path in self._trial.visits:
            with path.open("rb") as file:
                reader = Reader(file)
                for account in reader.header.accounts:
                    ends[account.key] = max(ends.get(account.key, -1), account.last)
                for entry in reader:
                    if entry.origin:
                        listed.setdefault(entry.origin.key, set()).add(entry.origin.counter)
        return ends, listed


def sign(signing: Signing, path: Path, header: Header, entries: Iterable[Entry]) -> tuple[Digest, Receipt]:
    """Writes a manifest and signs its record: the file first, under another name, so that no signed list is ever lost."""
    from io import BytesIO

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


def _file_name(text: str) -> str:
    """A subject or visit as a part of a file's name."""
    return "".join(character if character.isalnum() or character in "-." else "-" for character in text)


# ---- manifests as files -------------------------------------------------------------------------------------------------


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


# ---- transmittals -------------------------------------------------------------------------------------------------------


def create_transmittal(site: Site, trial: Trial, visits: Sequence[Path], output: Path) -> tuple[Header, Digest]:
    """Draws up the list of what leaves the site: the entries of these visits (all, where none are named) and their accounts."""
    chosen = list(visits) or trial.visits
    if not chosen:
        raise FixInput(f"the trial {trial.name} has no visits yet: `scanseal trial visit` first")
    target = output / MANIFEST
    if target.exists():
        raise FixInput(f"{target} exists already: a transmittal is drawn up once")
    headers = []
    for path in chosen:
        with path.open("rb") as file:
            headers.append(Reader(file).header)
    header = Header(
        format=manifest.FORMAT,
        kind="transmittal",
        trial=trial.name,
        site=site.name,
        nonce=secrets.token_bytes(16),
        find_key=trial.find_key,
        accounts=tuple(account for one in headers for account in one.accounts),
    )
    output.mkdir(parents=True, exist_ok=True)
    draft = target.with_suffix(".drawing")
    with draft.open("wb") as file:
        digest = manifest.write(header, _collected(chosen), file)
    draft.replace(target)
    return header, digest


def _collected(visits: Sequence[Path]) -> Iterator[Entry]:
    count = 0
    for path in visits:
        with path.open("rb") as file:
            for entry in Reader(file):
                if entry.record is None:
                    yield entry
                    continue
                yield entry.model_copy(update={"evidence": f"{count // EVIDENCE_SIZE:04d}.seal.json"})
                count += 1


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


def export_transmittal(
    site: Site, records: RecordReader, exporter: Exporter, folder: Path, say: Callable[[int], None]
) -> dict[str, int]:
    """Writes the evidence of a transmittal's images and of the list itself beside it. What was withheld is there as a record,
    and nothing opens it. Raises FixInput while the list is not signed."""
    _, digest = read_digest(folder / MANIFEST)
    own = stored_manifest(records, digest)
    if own is None:
        raise FixInput(f"{folder}: the list is not signed: `scanseal transmittal sign {folder}` first")
    if "transmittal" in site.four_eyes:
        names = {one.signed.record.own.get("name") for one in records.following([own.record_id])} - {None}
        if len(names) < EYES:
            raise NeedPermission(
                f"this site asks for {EYES} persons to close a transmittal, {len(names)} signed: "
                f"`scanseal esign {folder / MANIFEST} --as PERSON --meaning approved`"
            )
    evidence_folder = folder / "evidence"
    pending = images = 0
    with (folder / MANIFEST).open("rb") as file:
        listed = (entry for entry in Reader(file) if entry.record is not None)
        for number, chunk in enumerate(_chunks(listed, EVIDENCE_SIZE)):
            stored = records.by_id([entry.record for entry in chunk if entry.record])
            sent = [stored[entry.record] for entry in chunk if entry.record in stored and entry.status == "sent"]
            kept_back = [stored[entry.record] for entry in chunk if entry.record in stored and entry.status != "sent"]
            bundle = exporter.bundle(sent, with_tiles=False, others=kept_back)
            replace(evidence_folder / f"{number:04d}{SUFFIX}", evidence.write(bundle))
            pending += sum(1 for entry in bundle.entries if entry.included is None)
            images += len(sent)
            say(images)
    bundle = exporter.bundle((), with_tiles=False, others=[own])
    replace(evidence_folder / f"manifest{SUFFIX}", evidence.write(bundle))
    pending += sum(1 for entry in bundle.entries if entry.included is None)
    return {"images": images, "pending": pending}


def _chunks(entries: Iterator[Entry], size: int) -> Iterator[list[Entry]]:
    while chunk := list(islice(entries, size)):
        yield chunk
