"""A site's part of a trial: what it expects, what each visit contains, and what its devices made.

trials/NAME/trial.json      name, expected visits, the key of its look-up tokens
trials/NAME/visits/*.jsonl  one signed manifest a visit
trials/NAME/heartbeats/*/   what a device signed since its last one, as a folder that is sent like a transmittal
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from ledger.audit import expected
from ledger.audit.expected import ExpectedVisit
from ledger.core import content, manifest
from ledger.core.errors import FixInput, NeedPermission, Refused, Unreadable
from ledger.core.manifest import Account, Digest, Entry, Header, Kind, Origin, Reader
from ledger.core.records import ManifestRecord
from ledger.core.strict import from_b64, to_b64
from ledger.dicom import Image
from ledger.register import Receipt
from ledger.store.records import StoredRecord
from ledger.wiring.custody import Holdings
from ledger.wiring.images import Found
from ledger.wiring.manifests import MANIFEST, read_digest, sign, stored_manifest
from ledger.wiring.sealing import Signing
from ledger.wiring.site import Site, device_name, write_text


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

    @property
    def heartbeats(self) -> list[Path]:
        return sorted((self.folder / "heartbeats").glob(f"*/{MANIFEST}"))


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
        entries = self._entries(subject, visit, (("sent", sent), ("withheld", withheld)), reason)
        if not entries:
            entries = [Entry(subject=subject, visit=visit, status="none", reason=reason)]
        keys = {entry.origin.key for entry in entries if entry.origin}.union(*map(self._keys, devices))
        accounts, unaccounted = self._accounts(keys, self._trial.visits, entries, others, subject, visit)
        header = self._header("visit", accounts, subject, visit)
        digest, receipt = sign(self._signing, path, header, entries)
        return Drawn(path, digest, receipt, unaccounted)

    def heartbeat(
        self,
        images: Iterable[Found],
        subject: str | None,
        visit: str | None,
        *,
        devices: Sequence[str],
        others: Callable[[str, list[int]], list[int]],
    ) -> Drawn:
        """What the images' origins and `devices` (the signing key, where there are none) signed since the trial's last
        heartbeat of them: zero or more images, each of which some visit must list; those given are of this visit. Raises
        FixInput."""
        self._signing.require(ManifestRecord.ROLES)
        entries: list[Entry] = []
        if subject is not None and visit is not None:
            entries = self._entries(subject, visit, (("sent", images),), None)
        keys = {entry.origin.key for entry in entries if entry.origin}.union(*map(self._keys, devices))
        before = self._trial.heartbeats
        keys = keys or {self._signing.sealer.key}
        accounts, unaccounted = self._accounts(keys, before, entries, others, shown=self._slots(before))
        number = 1 + max((int(path.parent.name) for path in before), default=0)
        path = self._trial.folder / "heartbeats" / f"{number:06d}" / MANIFEST
        path.parent.mkdir(parents=True, exist_ok=True)
        digest, receipt = sign(self._signing, path, self._header("heartbeat", accounts), entries)
        return Drawn(path, digest, receipt, unaccounted)

    def _header(self, kind: Kind, accounts: Sequence[Account], subject: str | None = None, visit: str | None = None) -> Header:
        return Header(
            format=manifest.FORMAT,
            kind=kind,
            trial=self._trial.name,
            site=self._site.name,
            subject=subject,
            visit=visit,
            nonce=secrets.token_bytes(16),
            find_key=self._trial.find_key,
            accounts=tuple(accounts),
        )

    def _keys(self, name: str) -> set[bytes]:
        """The keys of a device of this site. Raises FixInput where it has none of that name."""
        keys = {certificate.key for known, certificate in self._site.certificates().items() if known == name}
        if not keys:
            raise FixInput(f"no device {name!r} here: `scanseal device list` shows them")
        return keys

    def _entries(
        self, subject: str, visit: str, images: Iterable[tuple[str, Iterable[Found]]], reason: str | None
    ) -> list[Entry]:
        """An entry for each image, by status. Raises FixInput for the first that cannot be listed, with the count of them."""
        entries: list[Entry] = []
        errors: list[str] = []
        for status, found in images:
            for one in found:
                try:
                    entries.append(self._entry(one.read(), subject, visit, status, reason))
                except Refused:
                    continue
                except (Unreadable, FixInput, NeedPermission) as error:
                    errors.append(f"{one.path}: {error}")
        if errors:
            raise FixInput(errors[0] + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""))
        return entries

    def _entry(self, image: Image, subject: str, visit: str, status: str, reason: str | None) -> Entry:
        read, stored = self._holdings.sealed(image)
        origin = self._origin(stored)
        finder = content.Finder(self._trial.find_key)
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

    def _slots(self, lists: Iterable[Path]) -> set[tuple[bytes, int]]:
        """(key, counter) of the records of lists that were signed here."""
        stored = (stored_manifest(self._signing.journal, read_digest(path)[1]) for path in lists)
        return {(one.signed.record.key, one.signed.record.counter) for one in stored if one is not None}

    def _accounts(
        self,
        keys: Iterable[bytes],
        before: Sequence[Path],
        entries: Sequence[Entry],
        others: Callable[[str, list[int]], list[int]],
        subject: str | None = None,
        visit: str | None = None,
        shown: Set[tuple[bytes, int]] = frozenset(),
    ) -> tuple[list[Account], dict[str, list[int]]]:
        """What these keys signed since the manifests `before`, and the counters that stay open, by device. Records that are no
        images' first ones are `others` by themselves, but for `shown`: lists that an auditor has."""
        names = {certificate.key: name for name, certificate in self._site.certificates().items()}
        ends, listed = _so_far(before)
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
            originals = self._signing.journal.originals(key, first, tail[0])
            open_counters = [one for one in originals if one not in listed.get(key, set())]
            no_images = set(range(first, tail[0] + 1)).difference(originals)
            excluded = set(others(name, open_counters)) | {one for one in no_images if (key, one) not in shown}
            accounts.append(
                Account(key=key, first=first, last=tail[0], others=tuple(sorted(excluded)), subject=subject, visit=visit)
            )
            left = [one for one in open_counters if one not in excluded]
            if left:
                unaccounted[name] = left
        return accounts, unaccounted


def _so_far(manifests: Iterable[Path]) -> tuple[dict[bytes, int], dict[bytes, set[int]]]:
    """(key -> where the accounts of these manifests end, key -> counters that they list)."""
    ends: dict[bytes, int] = {}
    listed: dict[bytes, set[int]] = {}
    for path in manifests:
        with path.open("rb") as file:
            reader = Reader(file)
            for account in reader.header.accounts:
                ends[account.key] = max(ends.get(account.key, -1), account.last)
            for entry in reader:
                if entry.origin:
                    listed.setdefault(entry.origin.key, set()).add(entry.origin.counter)
    return ends, listed


def _file_name(text: str) -> str:
    """A subject or visit as a part of a file's name."""
    return "".join(character if character.isalnum() or character in "-." else "-" for character in text)
