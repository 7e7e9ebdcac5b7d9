"""Transmittals: what leaves a site, as one list with its evidence beside it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from ledger.core import evidence, manifest
from ledger.core.errors import FixInput, NeedPermission
from ledger.core.manifest import Digest, Entry, Header, Reader
from ledger.store.records import RecordReader
from ledger.wiring.bundles import SUFFIX, Exporter
from ledger.wiring.export import replace
from ledger.wiring.manifests import MANIFEST, read_digest, stored_manifest
from ledger.wiring.site import EYES, Site
from ledger.wiring.trial import Trial

EVIDENCE_SIZE = 1024
"""Seals of one bundle of a transmittal."""


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


def export_transmittal(
    site: Site, records: RecordReader, exporter: Exporter, folder: Path, say: Callable[[int], None]
) -> dict[str, int]:
    """Writes the evidence of a transmittal's images and of the list itself beside it. What was withheld is there as a record,
    and nothing opens it. Raises FixInput while the list is not signed."""
    _, digest = read_digest(folder / MANIFEST)
    own = stored_manifest(records, digest)
    if own is None:
        raise FixInput(f"{folder}: the list is not signed: `scanseal transmittal sign {folder}` first")
    if digest.kind == "transmittal" and "transmittal" in site.four_eyes:
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
