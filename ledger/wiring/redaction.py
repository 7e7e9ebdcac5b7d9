"""Erasing studies at a site: in its store, and in the evidence bundles that lie in its folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ledger.core import evidence, renewal, stateproof
from ledger.core.errors import EvidenceInvalid, FixInput, NeedPermission, Unreadable
from ledger.core.evidence import Bundle, parents_of
from ledger.core.typeddata import Domain
from ledger.dicom import read
from ledger.store.redaction import RedactionStore, StudyRecords
from ledger.wiring.bundles import SUFFIX, read_bundle
from ledger.wiring.export import replace
from ledger.wiring.images import sealable

With = bool | None


def redact(
    store: RedactionStore, named: Sequence[str], folders: Sequence[Path], *, with_derived: With, say: Callable[[str], None]
) -> dict[str, Any]:
    """Erases the studies that are named by StudyInstanceUID or by one of their images.

    `with_derived` says what becomes of images of other studies that were made from theirs; it must be said where there are any.
    """
    studies = _studies(store, named)
    if not studies:
        store.forget()
        raise FixInput("no study of that name is here (any more): nothing was erased")
    derived = [one for study in studies for one in study.derived]
    chosen = {study.study for study in studies}
    outside = [one for one in derived if one.study not in chosen]
    if outside and with_derived is None:
        raise NeedPermission(
            f"{len(outside)} images of other studies (de-identified or derived) were made from these: say --with-derived to "
            "erase them too, or --keep-derived to keep them, which shows their holders that an original existed"
        )
    while with_derived and outside:
        more = store.studies_of(outside)
        studies += more
        chosen |= {study.study for study in more}
        outside = [one for study in more for one in study.derived if one.study not in chosen]
    ids = {record_id for study in studies for record_id in study.record_ids}
    store.redact(sorted(chosen))
    rewritten, removed = _clean_bundles(folders, ids, store, say)
    return {
        "studies": len(chosen),
        "records": len(ids),
        "derived_kept": 0 if with_derived else len([one for one in derived if one.study not in chosen]),
        "bundles_rewritten": rewritten,
        "bundles_removed": removed,
    }


def _studies(store: RedactionStore, named: Sequence[str]) -> list[StudyRecords]:
    found: dict[int, StudyRecords] = {}
    for name in named:
        uid = name
        if Path(name).is_file():
            uid = sealable(read(Path(name))).study
        study = store.study(uid)
        if study is not None:
            found[study.study] = study
    return list(found.values())


def _clean_bundles(
    folders: Sequence[Path], ids: set[bytes], store: RedactionStore, say: Callable[[str], None]
) -> tuple[int, int]:
    """(bundles rewritten, bundles removed): their seals of these records are gone."""
    contents = {stored.signed.record.content for stored in store.by_id(ids).values()}
    rewritten = removed = 0
    for path in sorted({file for folder in folders for file in folder.rglob(f"*{SUFFIX}")}):
        try:
            bundle = read_bundle(path)
        except (EvidenceInvalid, Unreadable) as error:
            say(f"not cleaned: {error}")
            continue
        kept = [seal for seal in bundle.seals if seal.record.content not in contents]
        if len(kept) == len(bundle.seals):
            continue
        if kept:
            replace(path, evidence.write(_of_seals(bundle, kept)))
            rewritten += 1
        else:
            try:
                path.unlink()
            except OSError as error:
                raise NeedPermission(f"{path}: cannot be removed ({error.strerror}), and still opens the study") from error
            removed += 1
    return rewritten, removed


def _of_seals(bundle: Bundle, kept: Sequence[evidence.Seal]) -> Bundle:
    """A bundle with these of its seals. Of the others stays what opens nothing, where a kept image was made from them; and
    nothing that belonged to them alone."""
    domain = Domain(bundle.ledger.chain_id, bundle.ledger.anchor_log)
    gone = {seal.record.value.id(domain): seal for seal in bundle.seals if seal not in kept}
    parents = {parent for seal in kept for parent in parents_of(seal)}
    parents |= {parent for entry in bundle.records for parent in parents_of(entry)}
    wanted = {record_id: seal for record_id, seal in gone.items() if record_id in parents}
    while more := {p: gone[p] for seal in wanted.values() for p in parents_of(seal) if p in gone and p not in wanted}:
        wanted |= more
    records = (
        *bundle.records,
        *(renewal.as_record(seal) for seal in wanted.values()),
    )
    numbers = sorted({seal.study for seal in kept})
    seals = tuple(seal.model_copy(update={"study": numbers.index(seal.study)}) for seal in kept)
    beacons = {seal.record.beacon_hash for seal in kept} | {entry.record.beacon_hash for entry in records}
    headers = tuple(header for header in bundle.headers if stateproof.parse_header(header).hash in beacons)
    studies = tuple(bundle.studies[number] for number in numbers)
    return bundle.model_copy(update={"seals": seals, "records": records, "studies": studies, "headers": headers})
