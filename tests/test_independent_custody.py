"""Both implementations on custody: histories made up at random, most of them with something wrong, and damaged lineages.

What one says of verdict, exit code, differing attributes, bracket and findings of the trail, the other says, too.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ledger.core import content, evidence
from ledger.core.custody import DEIDENTIFIED, OPERATIONS, SAME_CONTENT, SEVERAL_PARENTS, Statement, transferred
from ledger.core.deidentification import Option, may_change
from ledger.core.errors import FixInput
from ledger.core.evidence import Entry, RecordEntry, RecordPart, Seal
from ledger.core.records import CUSTODY_ROLES, CustodyRecord, Role, SignedRecord
from ledger.core.search import Subject
from ledger.core.trust import KeyNotice, Trust
from ledger.core.verdict import Token
from ledger.keys.signers import SoftwareSigner
from tests.core.conftest import make_subject
from tests.simulators.ledger import START, AnyEntry, World
from tests.test_independent import Case, damage, judged, replay, scribble, text_of
from tests.vectors.make_statements import DEIDENTIFY, EXTRA, ORDER

TIMES = [START + 32] * 60 + [START + 49, START + 50, START + 349, START + 350, START + 351, START - 270, START - 271, 0]
"""Claimed times: most in order, some at an edge of what the blocks and parents allow."""
NULL_MEMBER = re.compile(r'"(generator|parents|action|statement|kind|count|name|meaning)": ?null')
"""What `evidence.parse` lets pass, though FORMAT.md §7 does not: nothing is compared here."""
WORLDS, HISTORIES, DAMAGES = 16, 40, 700


def test_both_implementations_agree_on_histories_made_up_at_random(tmp_path: Path) -> None:
    folder = tmp_path / "bundles"
    folder.mkdir()
    found: Counter[Any] = Counter()
    for number in range(WORLDS):
        cases = histories(random.Random(f"ways {number}"))
        (folder / f"{number}.json").write_text(json.dumps(cases), encoding="utf-8")
        for case in cases:
            found.update([case["expect"]["verdict"], *(finding for _, finding in case["expect"].get("custody", ()))])
    done = replay(folder)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    verdicts = {str(token) for token in Token} - {"STRIPPED"}
    for word in (*verdicts, None, "gap", "fork", "role", "time", "content"):
        assert found[word] >= 20, (word, found)


@pytest.mark.parametrize("curve", ["secp256k1", "p256"])
def test_both_implementations_agree_on_damaged_lineages(tmp_path: Path, curve: Any) -> None:
    folder, chance = tmp_path / "bundles", random.Random(f"damage {curve}")
    folder.mkdir()
    world = World(curve)
    subject, whole = lineage(world)
    text, trusted = evidence.write(whole).decode(), text_of(world.trust(8))
    cases = [judged("whole", subject, text, trusted)]
    assert cases[0]["expect"]["verdict"] == "DERIVED"
    assert len(cases[0]["expect"]["custody"]) == 3
    first, records, others = text.partition(',"studies"')
    for number in range(DAMAGES):
        changed = first + scribble(records + others, chance) if chance.random() < 0.1 else damage(json.loads(text), chance)
        if not NULL_MEMBER.search(changed):
            cases.append(judged(f"damage {number}", subject, changed, trusted))
    (folder / "made.json").write_text(json.dumps(cases), encoding="utf-8")
    done = replay(folder)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    # Damage never makes a verdict of an image that it had not: the pixels and attributes are the sealed ones.
    assert {case["expect"]["verdict"] for case in cases} <= {"DERIVED", "PENDING", "REVOKED", "UNREGISTERED", "NOT_CHECKED"}


def lineage(world: World) -> tuple[Subject, evidence.Bundle]:
    """An image that was de-identified, handed on and approved, with the record of its original."""
    gateway, _ = world.newcomer(Role.TRANSFORM | Role.HOLD, "GW")
    person, _ = world.newcomer(Role.APPROVE, person="Dr. Ada")
    original = make_subject()
    child = make_subject(PatientName="S01", PatientID="S01", SOPInstanceUID="1.9")
    seal = world.seal(original)
    made = world.derive(child, seal, DEIDENTIFY, signer=gateway)
    moved = world.step(made, transferred(gateway.key), signer=gateway)
    received = world.step(moved, Statement("received"), signer=gateway)
    approved = world.approve(made, "Dr. Ada", "reviewed", signer=person)
    return child, world.anchored([made], records=[*listed([seal]), moved, received, approved])


def test_both_implementations_agree_on_how_far_they_look(tmp_path: Path) -> None:
    """64 records of a lineage, 63 steps of a trail; and ways that fork and join again are walked once."""
    folder, subject = tmp_path / "bundles", make_subject()
    folder.mkdir()
    cases = []
    for count in (63, 64):
        world = World()
        gateway, _ = world.newcomer(Role.TRANSFORM | Role.HOLD, "GW")
        seal = world.seal(subject)
        entries: list[Entry] = [seal]
        steps = []
        for _ in range(count):
            steps.append(world.step(entries[-1], Statement("stored"), signer=gateway))
            entries.append(steps[-1])
        cases.append(judged(f"{count} steps", subject, world.anchored([seal], records=steps), world.trust(8)))
        before = (steps[-2].record.value.id(world.domain),)
        last = world.derive(subject, seal, Statement("stored"), signer=gateway, parents=before)
        bundle = world.anchored([last], records=listed(entries[:-1]))
        cases.append(judged(f"{count} ancestors", subject, bundle, world.trust(8)))

    world = World()
    gateway, _ = world.newcomer(Role.TRANSFORM | Role.HOLD, "GW")
    first = world.seal(subject)
    layer, seals = [first], [first]
    statement = Statement("derived", {"operation": "ai-result", "changed": []})
    for width in (2,) * 30 + (1,):
        parents = tuple(one.record.value.id(world.domain) for one in layer)
        layer = [world.derive(subject, first, statement, signer=gateway, parents=parents) for _ in range(width)]
        seals += layer
    bundle = world.anchored(seals[-1:], records=listed(seals[:-1]))
    cases.append(judged("two ways at each of 30", subject, bundle, world.trust(8)))
    assert [case["expect"]["verdict"] for case in cases] == ["AUTHENTIC"] * 3 + ["NOT_CHECKED", "AUTHENTIC"]
    assert [[finding for _, finding in case["expect"]["custody"]].count("gap") for case in cases] == [0, 0, 1, 0, 0]
    (folder / "made.json").write_text(json.dumps(cases), encoding="utf-8")
    done = replay(folder)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr


def listed(entries: Sequence[Entry]) -> list[RecordEntry]:
    """The entries as records that no image is compared with."""
    return [RecordEntry(record=one.record, signature=one.signature, leaves=one.leaves) for one in entries]


# ---- histories -------------------------------------------------------------------------------------------------------


def histories(chance: random.Random) -> list[Case]:
    """One world, its bundle, and images with the verdicts that this implementation gives."""
    maker = _Maker(chance)
    subjects = [maker.history() for _ in range(HISTORIES)]
    bundle = maker.world.anchored(maker.seals, records=maker.records, headers=(maker.world.headers[3],))
    text, trusted = evidence.write(bundle).decode(), maker.trust()
    facts = {"blocks": {"8": "0x" + maker.world.hash_of(8).hex()}, "settled": chance.choice((7, 8))}
    cases: list[Case] = []
    for number, subject in enumerate(subjects):
        for name, one in ((f"{number}", subject), (f"{number}, changed", maker.changed(subject))):
            cases.append(judged(name, one, text, text_of(trusted), facts))
    for case in cases[1:]:
        case.update(trust={"of": cases[0]["name"]}, bundle={"of": cases[0]["name"]})
    return cases


class _Maker:
    """Makes histories of images with the keys of one world, mostly as they should be."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.world = World(chance.choice(("secp256k1", "p256")))
        self.keys: list[tuple[SoftwareSigner, Role, str | None]] = [(self.world.signer, Role.ACQUIRE, None)]
        for role in Role:
            person = "Dr. Ada" if role is Role.APPROVE else None
            roles = role if chance.random() < 0.5 else role | chance.choice(list(Role))
            signer, certificate = self.world.newcomer(roles, f"K{int(role)}", person=person)
            self.keys.append((signer, roles, person))
            if chance.random() < 0.1:
                late: Case = chance.choice(
                    [{"enrolled": START + 51}, {"retired": START + 49}, {"compromised": START + 50}, {"retired": START + 50}]
                )
                self.world.enrol(signer, certificate, roles=roles, **late)
        self.seals: list[Seal] = []
        self.records: list[RecordEntry] = []
        self.sent: dict[bytes, SoftwareSigner] = {}
        self.number = 0

    def trust(self) -> Trust:
        blocks = (8,) if self.chance.random() < 0.5 else ()
        thief, _, _ = self.chance.choice(self.keys)
        news = KeyNotice(key=thief.key, compromised_since=START + self.chance.choice((50, 51)))
        return self.world.trust(*blocks, keys=(news,) if self.chance.random() < 0.3 else ())

    def signer(self, role: Role) -> SoftwareSigner:
        """A key that has the role, or now and then any other."""
        able = [signer for signer, roles, _ in self.keys if roles & role]
        return self.chance.choice(able if self.chance.random() < 0.95 else [signer for signer, _, _ in self.keys])

    def when(self) -> dict[str, Any]:
        """What a signer says of time, and whether the log has the record."""
        changes: dict[str, Any] = {"claimed_time": self.chance.choice(TIMES), "in_log": self.chance.random() < 0.98}
        if self.chance.random() < 0.1:
            changes |= {"beacon_number": 4, "beacon_hash": b"\4" * 32}
        return changes

    def history(self) -> Subject:
        """An image, what was made of it, and what was done with these; the image that is to be verified."""
        self.number += 1
        subject = make_subject(self.number, SOPInstanceUID=f"1.2.{self.number}")
        images: list[tuple[Subject, Seal]] = [(subject, self.first(subject))]
        for _ in range(self.chance.choice((0, 1, 1, 2, 3))):
            images.append(self.made_from(images))
        for _, seal in images:
            steps: list[Entry] = [seal]
            for _ in range(self.chance.choice((0, 0, 1, 2, 4))):
                steps.append(self.followed(self.chance.choice(steps)))
        at_hand, _ = self.chance.choice(images) if self.chance.random() < 0.2 else images[-1]
        for one, seal in images:
            self.put(seal, is_image=one is at_hand or self.chance.random() < 0.2)
        return at_hand

    def put(self, seal: Seal, *, is_image: bool) -> None:
        if is_image:
            self.seals.append(seal)
        elif self.chance.random() < 0.97:
            leaves = seal.leaves if self.chance.random() < 0.97 else None
            self.records.append(RecordEntry(record=seal.record, signature=seal.signature, leaves=leaves))

    def first(self, subject: Subject) -> Seal:
        if self.chance.random() < 0.2:
            return self.world.synthesise(subject, "a model", signer=self.signer(Role.GENERATE))
        if self.chance.random() < 0.1:
            return self.world.hold(subject, signer=self.signer(Role.HOLD), **self.when())
        return self.world.seal(subject, signer=self.signer(Role.ACQUIRE), **self.when())

    def made_from(self, images: list[tuple[Subject, Seal]]) -> tuple[Subject, Seal]:
        """An image made from one of these, or from several."""
        original, parent = self.chance.choice(images)
        statement = self.statement()
        named = set(statement.changed)
        if self.chance.random() < 0.05:
            named ^= {self.chance.choice(content.ITEMS)}
        self.number += 1
        values: dict[str, str | None] = {name: f"{self.number}" for name in named if name in original.attributes}
        child = Subject(
            dict(original.attributes) | values, make_subject(self.number).digests if "PixelData" in named else original.digests
        )
        parents = [parent.record.value.id(self.world.domain)]
        if statement.operation in SEVERAL_PARENTS:
            others = [seal.record.value.id(self.world.domain) for _, seal in images]
            parents += self.chance.sample(others, self.chance.randrange(len(others) + 1))
            parents = list(dict.fromkeys(parents))
        role = CUSTODY_ROLES[statement.action]
        signer, changed = self.signer(role), tuple(statement.changed)
        seal = self.world.derive(
            child, parent, statement, signer=signer, parents=tuple(parents), changed=changed, **self.when()
        )
        return child, self.spoilt(seal, signer)

    def statement(self) -> Statement:
        """What is done, and what it names as changed: mostly what it may."""
        if self.chance.random() < 0.1:
            return Statement("transcoded", {"transfer_syntax": "1.2.840.10008.1.2.4.90"})
        if self.chance.random() < 0.4:
            options = sorted(self.chance.sample([str(one) for one in Option], self.chance.choice((0, 0, 1, 2, 5))))
            try:
                may = may_change(frozenset(map(Option, options)))
            except FixInput:
                options, may = [], may_change(frozenset())
            members = {"profile": "ps3.15-basic", "options": options, "changed": self.some(may)}
            return Statement(DEIDENTIFIED, members)
        operation = self.chance.choice(list(OPERATIONS))
        members = {"operation": operation, "changed": self.some(OPERATIONS[operation])} | EXTRA.get(operation, {})
        return Statement("derived", members)

    def some(self, may: frozenset[str]) -> list[str]:
        """Some of the items that may be changed, and now and then one that may not."""
        found = set(self.chance.sample(sorted(may), self.chance.randrange(min(len(may), 8) + 1)))
        if "SOPInstanceUID" in may and self.chance.random() < 0.8:
            found.add("SOPInstanceUID")
        if self.chance.random() < 0.08:
            found.add(self.chance.choice(content.ITEMS))
        return sorted(found, key=ORDER.__getitem__)

    def followed(self, parent: Entry) -> RecordEntry:
        """A step that leaves its image as it is, or should; or an approval."""
        if self.chance.random() < 0.2:
            name = self.chance.choice(("Dr. Ada", "Dr. Ada", "Dr. Ada", "Dr. Eve"))
            approved = self.world.approve(parent, name, "reviewed", signer=self.signer(Role.APPROVE), **self.when())
            self.records.append(approved)
            return approved
        sent_to = self.sent.get(parent.record.value.id(self.world.domain))
        is_receipt = sent_to is not None and self.chance.random() < 0.8
        actions = [*sorted(SAME_CONTENT - {"transcoded"}), *["transferred"] * 3]
        action = "received" if is_receipt else self.chance.choice(actions)
        signer, to = self.signer(CUSTODY_ROLES[action]), self.signer(Role.HOLD)
        if is_receipt and sent_to is not None and self.chance.random() < 0.8:
            signer = sent_to
        statement = transferred(to.key) if action == "transferred" else Statement(action)
        step = self.spoilt(self.world.step(parent, statement, signer=signer, **self.when()), signer)
        if action == "transferred":
            self.sent[step.record.value.id(self.world.domain)] = to
        self.records.append(step.model_copy(update={"leaves": None}))
        return step

    def spoilt(self, entry: AnyEntry, signer: SoftwareSigner) -> AnyEntry:
        """The entry as it is, or now and then with a record that says what it must not, signed all the same."""
        if self.chance.random() < 0.9:
            return entry
        world, honest = self.world, entry.record.value
        if not isinstance(honest, CustodyRecord):
            raise TypeError("only a custody record has a statement")
        record: CustodyRecord = honest
        members: Case = json.loads(record.statement)
        fewer: list[Case] = [{name: value for name, value in members.items() if name != one} for one in members]
        wrong: list[Case] = [
            {"statement": json.dumps(members | {"more": 1})},
            *({"statement": json.dumps(few)} for few in fewer),
            {"statement": json.dumps(members | {"salts": "A" * 43})},
            {"statement": json.dumps(members | {"tool": self.chance.choice(("", "x", "a\n", 7, None))})},
            {"statement": self.chance.choice(("", "{", "[]", "null", "{}"))},
            {"action": self.chance.choice(("forwarded", "stored", "read", DEIDENTIFIED))},
            {"parents": ()},
            {"parents": record.parents * 2},
            {"parents": (*record.parents, b"\7" * 32)},
            {"profile": "px1-blake3/attributes-1"},
            {"profile": "px9-sha256/attributes-1"},
            {"content": b"\5" * 32},
            {"counter": 0},
        ]
        record = replace(record, **self.chance.choice(wrong))
        signed = SignedRecord(record, signer.sign(record.id(world.domain)))
        if self.chance.random() < 0.9:
            world.entries.append(signed.entry())
        spoilt = type(entry)(**(dict(entry) | {"record": RecordPart.of(record), "signature": signed.signature}))
        if isinstance(entry, Seal):
            spoilt.__dict__["salts"] = entry.salts  # for children: a spoilt statement may not give them any more
        return spoilt

    def changed(self, subject: Subject) -> Subject:
        """The image with something else than it was sealed with."""
        if self.chance.random() < 0.4:
            return Subject(subject.attributes, make_subject(99_999).digests)
        name = self.chance.choice(["PatientID", "SOPInstanceUID", *subject.attributes])
        return Subject(dict(subject.attributes) | {name: "9.9.9"}, subject.digests)
