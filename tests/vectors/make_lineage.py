"""Vectors of custody: one bundle with images that were derived, generated and handed on, in and out of order."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import tomli_w

from ledger.core import content, evidence
from ledger.core.certificates import parse
from ledger.core.custody import OPERATIONS, Statement, transferred
from ledger.core.evidence import Entry, RecordEntry, RecordPart, Seal
from ledger.core.records import ManifestRecord, Record, Role, SignedRecord
from ledger.core.search import Subject
from ledger.core.strict import from_b64, to_b64
from ledger.core.trust import KeyNotice, Trust
from ledger.keys.signers import SoftwareSigner
from tests.core.conftest import make_subject
from tests.simulators.ledger import START, World
from tests.vectors.make_statements import CHANGED, DEIDENTIFY, NEW_PIXELS, derived

Case = dict[str, Any]
AnyEntry = TypeVar("AnyEntry", Seal, RecordEntry)
Step = list[str | None]
"""What a verifier replays of a step: action (or type of the record) and finding."""


class Journey:
    """One world whose bundle grows image by image; every image has a number, so that none is taken for another."""

    def __init__(self) -> None:
        self.world = World()
        newcomer = self.world.newcomer
        self.gateway, _ = newcomer(Role.TRANSFORM | Role.HOLD, "GW")
        self.cro, _ = newcomer(Role.HOLD, "CRO")
        self.reader, _ = newcomer(Role.READ, "READER")
        self.maker, _ = newcomer(Role.GENERATE, "GAN")
        self.ada, _ = newcomer(Role.APPROVE, person="Dr. Ada Müller")
        self.thief, _ = newcomer(Role.TRANSFORM | Role.HOLD, "GW2")
        self.forger, _ = newcomer(Role.ACQUIRE, "CT2")
        self.seals: list[Seal] = []
        self.records: list[RecordEntry] = []
        self.cases: list[tuple[str, Case, Subject]] = []
        self.number = 0

    # ---- images and records ----

    def image(self, **changes: str | None) -> Subject:
        """An image of its own."""
        self.number += 1
        return make_subject(self.number, SOPInstanceUID=f"1.2.{self.number}", **changes)

    def child(self, parent: Subject, *, pixels: bool = False, **changes: str | None) -> Subject:
        """What was made of an image: with another SOPInstanceUID, and other pixels if so."""
        self.number += 1
        attributes = dict(parent.attributes) | {"SOPInstanceUID": f"1.2.{self.number}"} | changes
        return Subject(attributes, make_subject(self.number).digests if pixels else parent.digests)

    def parent(self, subject: Subject, **changes: Any) -> Seal:
        """Seals an image whose record alone goes into the bundle."""
        seal = self.world.seal(subject, **changes)
        self.list(seal)
        return seal

    def list(self, *entries: Entry) -> None:
        """Puts entries into the bundle as records that no image is compared with."""
        for one in entries:
            self.records.append(RecordEntry(record=one.record, signature=one.signature, leaves=one.leaves))

    def derive(
        self,
        child: Subject,
        parent: Entry,
        statement: Statement = DEIDENTIFY,
        *,
        signer: SoftwareSigner | None = None,
        **more: Any,
    ) -> Seal:
        seal = self.world.derive(child, parent, statement, signer=signer or self.gateway, **more)
        self.seals.append(seal)
        return seal

    def step(self, parent: Entry, statement: Statement, signer: SoftwareSigner, **more: Any) -> RecordEntry:
        entry = self.world.step(parent, statement, signer=signer, **more).model_copy(update={"leaves": None})
        self.records.append(entry)
        return entry

    def resigned(self, entry: AnyEntry, signer: SoftwareSigner, **changes: Any) -> AnyEntry:
        """The entry with another record, which nobody honest would sign."""
        signed = self.sign(replace(entry.record.value, **changes), signer)
        return entry.model_copy(update={"record": RecordPart.of(signed.record), "signature": signed.signature})

    def sign(self, record: Record, signer: SoftwareSigner) -> SignedRecord:
        """A record that the world has no method for, as the key's next one, in the log."""
        counter, previous = self.world.tail.get(signer.key, (-1, bytes(32)))
        record = replace(record, key=signer.key, counter=counter + 1, previous=previous)
        signed = SignedRecord(record, signer.sign(record.id(self.world.domain)))
        self.world.tail[signer.key] = (record.counter, record.id(self.world.domain))
        self.world.entries.append(signed.entry())
        return signed

    def expect(
        self,
        name: str,
        verdict: str,
        code: int,
        subject: Subject,
        *,
        differing: tuple[str, ...] = (),
        custody: tuple[Step, ...] = (),
    ) -> None:
        expected = {"verdict": verdict, "exit_code": code, "differing": list(differing), "custody": list(custody)}
        self.cases.append((name, expected, subject))


def lineages() -> list[Case]:
    """One bundle, and an image for each thing that may be said of where it comes from and what was done with it."""
    journey = Journey()
    world = journey.world
    for part in (_in_order, _synthetic, _held, _false_receipts, _keys, _times, _broken, _trails):
        part(journey)
    news = KeyNotice(key=journey.thief.key, compromised_since=START + 50)
    bundle = world.anchored(journey.seals, records=journey.records, headers=(world.headers[3], world.headers[6]))
    trust = world.trust(6, 8, keys=(news,))
    nothing: Case = {"blocks": {}, "settled": -1, "keys": {}, "devices": {}}
    cases: list[Case] = []
    for name, expect, subject in journey.cases:
        attributes = {keyword: value for keyword, value in subject.attributes.items() if value is not None}
        digests = {profile: str(digest) for profile, digest in subject.digests.items()}
        like = {"of": cases[0]["name"]} if cases else None
        cases.append(
            {
                "name": name,
                "expect": expect,
                "subject": {"attributes": attributes, "digests": digests, "refusals": {}},
                "trust": like or _text_of(trust),
                "bundle": like or evidence.write(bundle).decode(),
                "facts": nothing,
            }
        )
    first = cases[0]
    unknown = first | {"trust": _text_of(world.trust(6, keys=(news,))), "bundle": {"of": first["name"]}}
    asked = nothing | {"blocks": {"8": "0x" + world.hash_of(8).hex()}, "settled": 7}
    cases.append(unknown | {"name": "not settled yet", "expect": {"verdict": "PENDING", "exit_code": 4}, "facts": asked})
    expect = {"verdict": "NOT_CHECKED", "exit_code": 6}
    cases.append(unknown | {"name": "nobody vouches", "expect": expect, "trust": {"of": "not settled yet"}})
    return [*cases, *_damaged(first, bundle)]


def _text_of(trust: Trust) -> str:
    return tomli_w.dumps(trust.model_dump(exclude_defaults=True) | {"format": trust.format})


def _in_order(at: Journey) -> None:
    original = at.image()
    seal = at.parent(original)
    child = at.child(original, PatientName="S01", PatientID="S01")
    made = at.derive(child, seal)
    moved = at.step(made, transferred(at.cro.key), at.gateway)
    at.step(moved, Statement("received", {"tool": "scanseal 1"}), at.cro)
    at.list(at.world.approve(made, "Dr. Ada Müller", "reviewed", signer=at.ada))
    trail: tuple[Step, ...] = (["transferred", None], ["received", None], ["Approval", None])
    at.expect("de-identified, handed on and approved", "DERIVED", 0, child, custody=trail)
    renamed = replace(child, attributes=dict(child.attributes) | {"PatientID": "S02"})
    at.expect("the same with another subject", "MISMATCH", 1, renamed, differing=("PatientID",), custody=trail)
    at.expect("the same with other pixels", "ALTERED", 1, replace(child, digests=make_subject(999).digests), custody=trail)

    at.seals.append(seal)  # from here on a candidate by its pixels, too
    back = at.child(child, PatientName="S01", StudyDate="20260201")
    at.derive(back, made, derived("correction", "SOPInstanceUID", "StudyDate"))
    at.expect("corrected after that", "DERIVED", 0, back)

    for operation in OPERATIONS:
        original = at.image()
        with_pixels = operation != "correction"
        result = at.child(original, pixels=with_pixels, SeriesInstanceUID="1.9", ImageType="DERIVED\\SECONDARY")
        names = ["SOPInstanceUID", "SeriesInstanceUID", "ImageType", *(["PixelData"] if with_pixels else [])]
        at.derive(result, at.parent(original), derived(operation, *names))
        at.expect(f"derived: {operation}", "DERIVED", 0, result)

    original = at.image()
    transcoded = Statement("transcoded", {"transfer_syntax": "1.2.840.10008.1.2.4.90"})
    at.derive(original, at.parent(original), transcoded)
    at.expect("transcoded", "AUTHENTIC", 0, original)

    original = at.image()
    pending = at.child(original)
    at.derive(pending, at.parent(original), in_log=False)
    at.expect("derived, not anchored yet", "PENDING", 4, pending)
    original = at.image()
    early = at.child(original)
    at.derive(early, at.parent(original, in_log=False))
    at.expect("derived from what is not anchored yet", "PENDING", 4, early)
    original = at.image()
    early = at.child(original)
    at.derive(early, at.parent(original, in_log=False))
    at.seals.append(at.world.seal(replace(early, attributes=dict(early.attributes) | {"PatientID": "S09"})))
    at.expect("the same, sealed with another patient and anchored", "MISMATCH", 1, early, differing=("PatientID",))

    parents = [at.parent(at.image()), at.parent(at.image())]
    result = at.child(at.image(), pixels=True)
    ids = tuple(parent.record.value.id(at.world.domain) for parent in parents)
    at.derive(result, parents[0], derived("ai-result", *content.ITEMS[:2], *content.ITEMS[7:]), parents=ids)
    at.expect("of two parents", "DERIVED", 0, result)


def _synthetic(at: Journey) -> None:
    made = at.image(PatientName="Synthetic^One", PatientID="SYN1")
    seal = at.world.synthesise(made, "StyleGAN3 (weights 8c1f)", signer=at.maker)
    at.seals.append(seal)
    at.expect("generated", "DECLARED_SYNTHETIC", 9, made)
    result = at.child(made, pixels=True, RescaleIntercept="-1000")
    at.derive(result, seal, derived("window", *NEW_PIXELS, "RescaleIntercept"))
    at.expect("derived from what was generated", "DECLARED_SYNTHETIC", 9, result)

    twin = replace(made, attributes=dict(made.attributes) | {"PatientID": "SYN2"})
    at.seals.append(at.world.synthesise(twin, "a model", signer=at.maker))
    at.expect("generated, beside another image with the same pixels", "DECLARED_SYNTHETIC", 9, made)
    patient = replace(made, attributes=dict(made.attributes) | {"PatientID": "4711"})
    at.expect("generated pixels as a patient's", "MISMATCH", 1, patient, differing=("PatientID",))
    sealed = replace(made, attributes=dict(made.attributes) | {"PatientID": "4712"})
    at.seals.append(at.world.seal(sealed))
    at.expect("generated pixels that a device sealed as a patient's", "MISMATCH", 1, sealed, differing=("PatientID",))
    sealed = at.image()
    at.seals.append(at.world.seal(sealed))
    claimed = replace(sealed, attributes=dict(sealed.attributes) | {"PatientID": "SYN3"})
    at.seals.append(at.world.synthesise(claimed, "a model", signer=at.maker, in_log=False))
    at.expect("sealed pixels that someone says were generated, not anchored", "AUTHENTIC", 0, sealed)

    original = at.image()
    first, second = at.parent(original), at.world.synthesise(at.image(), "a model", signer=at.maker)
    at.list(second)
    result = at.child(original, pixels=True)
    ids = tuple(parent.record.value.id(at.world.domain) for parent in (first, second))
    at.derive(result, first, derived("secondary-capture", *NEW_PIXELS), parents=ids)
    at.expect("a collage with something generated", "DECLARED_SYNTHETIC", 9, result)


def _held(at: Journey) -> None:
    """Evidence without an origin: it proves since when an image is what it is, and never who made it."""
    held = at.image()
    seal = at.world.hold(held, signer=at.cro)
    at.seals.append(seal)
    at.expect("held by a gateway, of unknown origin", "UNREGISTERED", 3, held)
    waiting = at.image()
    at.seals.append(at.world.hold(waiting, signer=at.cro, in_log=False))
    at.expect("held, not anchored yet", "UNREGISTERED", 3, waiting)
    at.expect("held, with other pixels", "ALTERED", 1, Subject(held.attributes, at.image().digests))
    other = replace(held, attributes=dict(held.attributes) | {"PatientID": "held-1"})
    at.expect("held, as another patient's", "MISMATCH", 1, other, differing=("PatientID",))
    at.expect("the pixels that were held, as another instance's", "UNREGISTERED", 3, at.child(held))
    renamed = at.image()
    at.seals += [at.world.hold(at.child(renamed), signer=at.cro), at.world.hold(at.child(renamed, pixels=True), signer=at.cro)]
    last = replace(renamed, attributes=dict(renamed.attributes) | {"SOPInstanceUID": f"1.2.{at.number}"})
    at.expect("held with other pixels, which were held as another instance's", "ALTERED", 1, last)
    scanner = at.image()
    at.seals.append(at.world.hold(scanner, signer=at.forger))
    at.expect("held, by a key that may only acquire", "REVOKED", 1, scanner)

    both = at.image()
    at.seals += [at.world.hold(both, signer=at.cro), at.world.seal(both)]
    at.expect("held, and sealed by its device", "AUTHENTIC", 0, both)
    changed = at.image()
    at.parent(changed)
    edited = Subject(changed.attributes, at.image().digests)
    at.seals += [at.world.seal(changed), at.world.hold(edited, signer=at.cro)]
    at.expect("changed, and then held by a gateway", "ALTERED", 1, edited)

    child = at.child(held, PatientName="S01", PatientID="S01")
    at.derive(child, seal)
    at.expect("de-identified from what was held", "UNREGISTERED", 3, child)
    stored = at.image()
    first = at.world.hold(stored, signer=at.cro)
    at.list(first)
    at.seals.append(at.world.derive(stored, first, Statement("stored"), signer=at.cro))
    at.expect("held, then stored", "UNREGISTERED", 3, stored)
    parents = [at.parent(at.image()), at.world.hold(at.image(), signer=at.cro)]
    at.list(parents[1])
    for order in (parents, parents[::-1]):
        result = at.child(at.image(), pixels=True)
        ids = tuple(parent.record.value.id(at.world.domain) for parent in order)
        at.derive(result, order[0], derived("ai-result", *content.ITEMS[:2], *content.ITEMS[7:]), parents=ids)
        at.expect(f"of two parents, number {order.index(parents[1]) + 1} of unknown origin", "UNREGISTERED", 3, result)
    generated = at.world.synthesise(at.image(), "a model", signer=at.maker)
    at.list(generated)
    result = at.child(at.image(), pixels=True)
    ids = tuple(parent.record.value.id(at.world.domain) for parent in (parents[1], generated))
    at.derive(result, parents[1], derived("secondary-capture", *NEW_PIXELS), parents=ids)
    at.expect("a collage of something held and something generated", "DECLARED_SYNTHETIC", 9, result)


def _false_receipts(at: Journey) -> None:
    named = Statement(DEIDENTIFY.action, dict(DEIDENTIFY.members) | {"changed": [*CHANGED, "PixelSpacing"]})
    spacing = {"PixelSpacing": "1\\1"}
    receipts: tuple[tuple[str, Statement, dict[str, str]], ...] = (
        ("a kept attribute is another", DEIDENTIFY, spacing),
        ("an attribute is changed that may not be", named, spacing),
        ("such an attribute with the same value", named, {}),
    )
    for name, statement, changes in receipts:
        original = at.image()
        child = at.child(original, pixels=False, PatientID="S01", **changes)
        at.derive(child, at.parent(original), statement)
        at.expect(f"false receipt: {name}", "MISMATCH", 1, child, differing=("PixelSpacing",))
    original = at.image()
    child = at.child(original, pixels=True)
    at.derive(child, at.parent(original), derived("correction", "SOPInstanceUID"))
    at.expect("false receipt: other pixels", "ALTERED", 1, child)
    original = at.image()
    middle = at.child(original, PatientSex="F")
    false = at.derive(middle, at.parent(original), derived("correction", "SOPInstanceUID"))
    last = at.child(middle, PatientID="S01")
    at.derive(last, false)
    at.expect("false receipt: the parent's", "MISMATCH", 1, last, differing=("PatientSex",))
    original = at.image()
    stored = at.child(original)
    at.derive(stored, at.parent(original), Statement("stored"))
    at.expect("false receipt: stored as another instance", "MISMATCH", 1, stored, differing=("SOPInstanceUID",))


def _keys(at: Journey) -> None:
    original = at.image()
    child = at.child(original)
    at.derive(child, at.parent(original), signer=at.cro)
    at.expect("derived without the role", "REVOKED", 1, child)
    original = at.image()
    child = at.child(original)
    at.derive(child, at.parent(original), signer=at.thief)
    at.expect("derived with a stolen key", "REVOKED", 1, child)
    original = at.image()
    child = at.child(original)
    stolen = at.world.derive(child, at.parent(original), DEIDENTIFY, signer=at.thief)
    at.list(stolen)
    last = at.child(child, SeriesInstanceUID="1.7")
    at.derive(last, stolen, derived("correction", "SOPInstanceUID", "SeriesInstanceUID"))
    at.expect("derived from what a stolen key derived", "REVOKED", 1, last)
    original = at.image()
    at.parent(at.image(), signer=at.forger, counter=0, previous=bytes(32))
    rival = at.parent(original, signer=at.forger, counter=0, previous=bytes(32))
    child = at.child(original)
    at.derive(child, rival)
    at.expect("two records in the slot of the parent's", "REVOKED", 1, child)
    at.seals.append(at.world.seal(image := at.image(), signer=at.cro))
    at.expect("acquired without the role", "REVOKED", 1, image)
    at.seals.append(at.world.synthesise(image := at.image(), "a model", signer=at.cro))
    at.expect("generated without the role", "REVOKED", 1, image)


def _times(at: Journey) -> None:
    for name, verdict, code, late, after in (
        ("at the tolerance", "DERIVED", 0, START + 350, START + 50),
        ("over the tolerance", "MISMATCH", 1, START + 350, START + 49),
    ):
        original = at.image()
        child = at.child(original)
        at.derive(child, at.parent(original, claimed_time=late), claimed_time=after)
        at.expect(f"claimed before its parent, {name}", verdict, code, child)
    original = at.image()
    first, second = at.parent(original), at.parent(at.image(), claimed_time=START + 350)
    child = at.child(original, pixels=True)
    ids = tuple(one.record.value.id(at.world.domain) for one in (first, second))
    at.derive(child, first, derived("ai-result", *NEW_PIXELS), parents=ids, claimed_time=START + 49)
    at.expect("claimed before its second parent", "MISMATCH", 1, child)
    at.world.mine(6)
    original = at.image()
    child = at.child(original)
    beacon = {"beacon_number": 6, "beacon_hash": at.world.hash_of(6)}
    at.derive(child, at.parent(original, **beacon))
    at.expect("on chain before its parent was made", "MISMATCH", 1, child)


def _broken(at: Journey) -> None:
    domain = at.world.domain
    world = at.world
    beacon = world.time_of(3) + 1, 3, world.hash_of(3)
    listed = at.sign(ManifestRecord(b"\1" * 32, "manifest-1", bytes(32), 0, bytes(32), *beacon, "heartbeat", 0), at.cro)
    at.records.append(RecordEntry(record=RecordPart.of(listed.record), signature=listed.signature))
    wrong: dict[str, dict[str, Any]] = {
        "a statement with an unknown member": {"statement": {"more": 1}},
        "a statement with an option that is none": {"statement": {"options": ["clean-pixel-data"]}},
        "a statement of other salts": {"statement": {"salts": to_b64(b"\3" * 32)}},
        "a statement that is no JSON": {"statement": "{"},
        "an unknown action": {"action": "forwarded"},
        "a parent that is not there": {"parents": (b"\7" * 32,)},
        "a manifest as parent": {"parents": (listed.record.id(domain),)},
        "two parents where one belongs": {"parents": tuple(seal.record.value.id(domain) for seal in at.seals[:2])},
        "no parent": {"parents": ()},
    }
    for name, changes in wrong.items():
        original = at.image()
        child = at.child(original)
        seal = at.world.derive(child, at.parent(original), DEIDENTIFY, signer=at.gateway, in_log=False)
        if isinstance(changes.get("statement"), dict):
            changes = {"statement": json.dumps(json.loads(seal.record.statement or "") | changes["statement"])}
        at.seals.append(at.resigned(seal, at.gateway, **changes))
        at.expect(name, "NOT_CHECKED", 7, child)
    original = at.image()
    at.derive(original, at.parent(original), Statement("stored"), profile="px1-blake3/attributes-1")
    at.expect("another profile of the same content", "NOT_CHECKED", 7, original)


def _trails(at: Journey) -> None:
    """What is found in the steps of an image never changes its verdict."""

    def sealed() -> tuple[Subject, Seal]:
        image = at.image()
        at.seals.append(at.world.seal(image))
        return image, at.seals[-1]

    image, seal = sealed()
    at.step(seal, Statement("stored"), at.reader)
    at.step(seal, Statement("read"), at.reader)
    at.step(seal, Statement("exported"), at.gateway, in_log=False)
    trail: tuple[Step, ...] = (["stored", "role"], ["read", None], ["exported", None])
    at.expect("trail: stored by a reader", "AUTHENTIC", 0, image, custody=trail)

    image, seal = sealed()
    forged = at.step(seal, Statement("stored"), at.gateway, in_log=False)
    at.records[-1] = forged.model_copy(update={"signature": bytes(63) + b"\1"})
    at.step(forged, Statement("stored"), at.gateway)
    at.list(at.world.approve(seal, "Dr. Eve", "approved", signer=at.ada))
    trail = (["Approval", "role"], ["stored", "role"])
    at.expect("trail: unproven", "AUTHENTIC", 0, image, custody=trail)

    image, seal = sealed()
    at.step(seal, Statement("stored"), at.gateway, claimed_time=START + 351)
    at.step(
        at.step(seal, Statement("stored"), at.gateway, claimed_time=START + 350),
        Statement("read"),
        at.reader,
        claimed_time=START + 49,
    )
    trail = (["stored", "time"], ["stored", None], ["read", "time"])
    at.expect("trail: times", "AUTHENTIC", 0, image, custody=trail)

    image, seal = sealed()
    at.step(seal, Statement("stored"), at.gateway, content=b"\5" * 32)
    stored = at.world.step(seal, Statement("stored"), signer=at.gateway, in_log=False)
    at.list(at.resigned(stored, at.gateway, statement='{"more":1}'))
    trail = (["stored", "content"], ["stored", "content"])
    at.expect("trail: another content, and a statement that is none", "AUTHENTIC", 0, image, custody=trail)

    image, seal = sealed()
    at.step(seal, Statement("received"), at.cro)
    moved = at.step(seal, transferred(at.cro.key), at.gateway)
    at.step(moved, Statement("received"), at.gateway)
    again = at.step(seal, transferred(at.cro.key), at.gateway)
    at.step(again, Statement("received"), at.cro)
    at.step(again, Statement("received"), at.cro)
    fork: Step = ["received", "fork"]
    trail = (["received", "gap"], ["transferred", None], fork, ["transferred", None], fork, fork)
    at.expect("trail: gaps and forks", "AUTHENTIC", 0, image, custody=trail)

    image, seal = sealed()
    child = at.child(image, PatientID="S01")
    at.step(at.derive(child, seal), Statement("stored"), at.gateway)
    at.step(seal, Statement("stored"), at.gateway)
    at.expect("trail: the child's steps are the child's", "AUTHENTIC", 0, image, custody=(["stored", None],))
    at.expect("trail: of the child", "DERIVED", 0, child, custody=(["stored", None],))


def _damaged(first: Case, bundle: evidence.Bundle) -> list[Case]:
    """The first image's evidence alone, damaged where custody stands."""
    entries: list[Entry] = [bundle.seals[0], *bundle.records[:4]]
    certificates = tuple(der for der in bundle.certificates if parse(der).key in {entry.record.key for entry in entries})
    parts = {"seals": bundle.seals[:1], "records": bundle.records[:4], "certificates": certificates}
    small = bundle.model_copy(update=parts | {"headers": bundle.headers[:1]})
    text = evidence.write(small).decode()

    def changed(change: Callable[[Case], Any]) -> str:
        copied: Case = json.loads(text)
        change(copied)
        return json.dumps(copied, separators=(",", ":"))

    def seal(copied: Case) -> Case:
        found: Case = copied["seals"][0]
        return found

    def flipped(data: str) -> str:
        octets = from_b64(data)
        return to_b64(bytes([octets[0] ^ 1]) + octets[1:])

    damages: dict[str, Callable[[Case], Any]] = {
        "kept salts, one too few": lambda all_: seal(all_).update(kept=seal(all_)["kept"][:-22]),
        "a kept salt": lambda all_: seal(all_).update(kept=flipped(seal(all_)["kept"])),
        "the image key": lambda all_: seal(all_).update(image_key=flipped(seal(all_)["image_key"])),
        "no kept salts": lambda all_: seal(all_).pop("kept"),
        "no parent": lambda all_: all_["records"].pop(0),
        "the parent's leaves": lambda all_: all_["records"][0].pop("leaves"),
        "the statement": lambda all_: seal(all_)["record"].update(statement=seal(all_)["record"]["statement"] + " "),
        "the parents": lambda all_: seal(all_)["record"].update(parents=[]),
        "an unknown type": lambda all_: seal(all_)["record"].update(type="DeletionRecord"),
        "the type of the head": lambda all_: seal(all_)["record"].update(type="AcquisitionRecord"),
        "members of another type": lambda all_: seal(all_)["record"].update(meaning="reviewed"),
        "a member too few": lambda all_: seal(all_)["record"].pop("action"),
        "an approval as a seal": lambda all_: all_["seals"].append(
            {**seal(all_), "find": "A" * 22, "record": all_["records"][3]["record"]}
        ),
    }

    def doubled(copied: Case) -> None:
        bare = {**copied["records"][0], "leaves": None}
        copied["records"] = [bare, *copied["records"], bare]

    bundles = [("whole", first["expect"], text), ("the parent also without leaves", first["expect"], changed(doubled))]
    bundles += [(name, {"verdict": "NOT_CHECKED", "exit_code": 7}, changed(change)) for name, change in damages.items()]
    like = {"trust": {"of": first["name"]}, "subject": first["subject"], "facts": first["facts"]}
    return [{"name": f"damaged custody: {name}", "expect": expect, **like, "bundle": made} for name, expect, made in bundles]
