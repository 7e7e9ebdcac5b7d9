"""A site that images pass through: who transforms, holds, generates; and what is made of an image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ledger.core import content
from ledger.core.custody import Statement
from ledger.core.evidence import Bundle, Entry, RecordEntry, RecordPart, Seal
from ledger.core.records import Record, Role, SignedRecord
from ledger.core.search import Subject
from ledger.core.verdict import Verdict
from ledger.core.verify import Evidence, verify
from ledger.keys.signers import SoftwareSigner
from tests.core.conftest import make_subject
from tests.simulators.ledger import World

NOBODY = {"PatientName": "S01", "PatientID": "S01"}
DEIDENTIFY = Statement(
    "de-identified", {"profile": "ps3.15-basic", "options": [], "changed": ["PatientName", "PatientID", "SOPInstanceUID"]}
)


def derived(operation: str, *changed: str, **more: Any) -> Statement:
    extra = {"lossy-compression": {"maximum_error": 1, "mean_error": "0.100000"}, "crop": {"x": 0, "y": 0}}
    members = {"operation": operation, "changed": sorted(changed, key=content.ITEMS.index), **extra.get(operation, {}), **more}
    return Statement("derived", members | ({"reason": "wrong side"} if operation == "correction" else {}))


def made_of(parent: Subject, seed: int | None = None, uid: str = "1.9", **changes: str | None) -> Subject:
    """What is made of an image: another instance, with other pixels where there is a seed."""
    attributes = dict(parent.attributes) | {"SOPInstanceUID": uid} | changes
    return Subject(attributes, parent.digests if seed is None else make_subject(seed).digests)


def shown(*entries: Entry) -> list[RecordEntry]:
    """Entries as records that open nothing."""
    return [RecordEntry(record=one.record, signature=one.signature, leaves=one.leaves) for one in entries]


def verdict_of(subject: Subject, bundle: Bundle, world: World, *more: Bundle, **trust: Any) -> Verdict:
    return verify(subject, Evidence([bundle, *more], world.trust(8, **trust)))


class Site(World):
    """A world with people and machines that images pass through."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.gateway, _ = self.newcomer(Role.TRANSFORM, "GW")
        self.cro, _ = self.newcomer(Role.HOLD, "CRO")
        self.maker, _ = self.newcomer(Role.GENERATE, "GAN")
        self.original = make_subject()

    def verdict(self, subject: Subject, seals: list[Seal], *records: Entry, **trust: Any) -> Verdict:
        return verdict_of(subject, self.anchored(seals, records=shown(*records)), self, **trust)


def signed_again(site: World, record: Record, signer: SoftwareSigner, **changes: Any) -> dict[str, Any]:
    """Another record as the signer's next one, in the log: the part of an entry that has it."""
    counter, previous = site.tail.get(signer.key, (-1, bytes(32)))
    record = replace(record, **{"key": signer.key, "counter": counter + 1, "previous": previous} | changes)
    record_id = record.id(site.domain)
    signed = SignedRecord(record, signer.sign(record_id))
    site.tail[signer.key] = (record.counter, record_id)
    site.entries.append(signed.entry())
    return {"record": RecordPart.of(record), "signature": signed.signature}
