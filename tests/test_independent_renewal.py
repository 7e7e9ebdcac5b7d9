"""Both implementations on renewed evidence: in any order, damaged at random, and by trust files that say what has fallen."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ledger.core import contracts, evidence, renewal
from ledger.core.search import Subject
from ledger.keys.signers import Curve
from tests.core.conftest import make_subject
from tests.simulators.ledger import REGISTRY, START, World
from tests.test_independent import Case, damage, judged, replay, scribble, text_of
from tests.test_independent_custody import NULL_MEMBER
from tests.vectors.make_renewals import RENEWED, STATE_BLOCK, Family, family, renewed, shuffled, trusting

FELL = RENEWED + 1
ORDERS, DAMAGES, RENEWALS, TRUSTS = 30, 140, 220, 80


@pytest.fixture(scope="module")
def kin() -> Family:
    """An original, what was made of it, and a collage of both, all renewed, and two of them once more, too late."""
    made = family()
    once = renewed(made.world, made.bundle, made.images, beside=1)
    images = {place: made.images[place] for place in (made.ORIGINAL, made.CHILD)}
    twice = renewed(made.world, once, images, block=30, state_block=33, log=b"\x78" * 32)
    return replace(made, bundle=twice)


def agreed(folder: Path, cases: list[Case]) -> set[tuple[Any, Any]]:
    """(verdict, exit code) of the cases, after both implementations gave the same."""
    (folder / "bundles").mkdir()
    (folder / "bundles" / "made.json").write_text(json.dumps(cases), encoding="utf-8")
    done = replay(folder / "bundles")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    return {(case["expect"]["verdict"], case["expect"]["exit_code"]) for case in cases}


def test_both_implementations_agree_on_renewed_evidence_in_any_order(kin: Family, tmp_path: Path) -> None:
    chance, cases = random.Random("orders"), []
    trust = kin.trust(STATE_BLOCK, 33, sha256=FELL)
    for number in range(ORDERS):
        mixed = shuffled(kin.bundle, chance)
        cases += [judged(f"order {number}", subject, mixed, trust) for subject in kin.subjects]
    assert agreed(tmp_path, cases) == {("AUTHENTIC", 0), ("DERIVED", 0)}


def test_both_implementations_agree_on_images_that_were_not_renewed_like_this(kin: Family, tmp_path: Path) -> None:
    cases = []
    for trust in (kin.trust(STATE_BLOCK, 33), kin.trust(STATE_BLOCK, 33, sha256=FELL)):
        for subject in kin.subjects:
            for name in ("PatientID", "PixelSpacing", "SOPInstanceUID"):
                changed = Subject(dict(subject.attributes) | {name: "9.9.9"}, subject.digests)
                cases.append(judged(f"another {name}", changed, kin.bundle, trust))
            for seed in (1, 3, 99):
                digests = make_subject(seed).digests
                cases.append(judged("other pixels", Subject(subject.attributes, digests), kin.bundle, trust))
                newer = Subject(subject.attributes, dict(subject.digests) | {"px1-blake3": digests["px1-blake3"]})
                cases.append(judged("another BLAKE3 digest", newer, kin.bundle, trust))
            bare = Subject(subject.attributes, {"px1-sha256": subject.digests["px1-sha256"]})
            cases.append(judged("no BLAKE3 digest", bare, kin.bundle, trust))
    assert agreed(tmp_path, cases) >= {("AUTHENTIC", 0), ("ALTERED", 1), ("MISMATCH", 1), ("NOT_CHECKED", 7)}


def test_both_implementations_agree_on_what_has_fallen_and_which_blocks_are_known(kin: Family, tmp_path: Path) -> None:
    cases = []
    times = (1, START, START + 1, START + 50, START + 51, RENEWED, FELL, RENEWED + 100, RENEWED + 101)
    for algorithm in ("sha256", "secp256k1", "p256"):
        for since in times:
            trust = kin.trust(STATE_BLOCK, 33, **{algorithm: since})
            cases += [judged(f"{algorithm} fell at {since}", one, kin.bundle, trust) for one in kin.subjects]
    hashes = {number: "0x" + kin.world.hash_of(number).hex() for number in (STATE_BLOCK, 33)}
    for since in (FELL, RENEWED + 101):
        for settled in (22, 23, 32, 33):
            for asked in ([STATE_BLOCK], [33], [STATE_BLOCK, 33]):
                facts = {"blocks": {str(number): hashes[number] for number in asked}, "settled": settled}
                for one in kin.subjects:
                    cases.append(judged(f"settled {settled} of {asked}", one, kin.bundle, kin.trust(sha256=since), facts))
    assert agreed(tmp_path, cases) >= {("AUTHENTIC", 0), ("DERIVED", 0), ("NOT_CHECKED", 7), ("NOT_CHECKED", 6)}


def test_both_implementations_agree_on_enrolments_and_falls(tmp_path: Path) -> None:
    """An authority's algorithm counts when its certificate was enrolled, which the chain may tell of what is not anchored."""
    cases, subject = [], make_subject()
    curves: tuple[Curve, ...] = ("secp256k1", "p256")
    for curve in curves:
        for enrolled in (START - 1, START, 0):
            world = World(curve)
            world.enrol(world.signer, world.certificate, enrolled=enrolled)
            sealed = world.anchored([world.seal(subject)])
            waiting = world.bundle([world.seal(subject, in_log=False)])
            words = [f"0x{world.storage[REGISTRY][slot]:064x}" for slot in contracts.key_slots(world.signer.key)]
            asked = {"keys": {"0x" + world.signer.key.hex(): words}}
            for algorithm in curves:
                for since in (START - 1, START, START + 51):
                    trust = trusting(world, 8, **{algorithm: since})
                    name = f"{curve}, enrolled {enrolled}, {algorithm} fell at {since}"
                    for facts in ({}, asked):
                        cases.append(judged(f"{name}, {len(facts)}", subject, sealed, trust, facts))
                        cases.append(judged(f"{name}, {len(facts)}, not anchored", subject, waiting, trust, facts))
    assert agreed(tmp_path, cases) >= {("AUTHENTIC", 0), ("PENDING", 4), ("NOT_CHECKED", 7)}


@pytest.mark.parametrize("curve", ["secp256k1", "p256"])
def test_both_implementations_agree_on_damaged_renewals(tmp_path: Path, curve: Curve) -> None:
    world, subject, chance = World(curve), make_subject(), random.Random(f"renewals {curve}")
    sealed = world.anchored([world.seal(subject, decoder="d 1"), world.seal(make_subject(2, SOPInstanceUID="9.9"))])
    once = renewed(world, sealed, {0: subject, 1: None}, beside=2)
    twice = renewed(world, once, {0: subject}, block=30, state_block=33, beside=4)
    text = evidence.write(twice).decode()
    found = []
    for since in (None, FELL):
        trust = text_of(trusting(world, 8, STATE_BLOCK, 33, **({} if since is None else {"sha256": since})))
        found.append(judged("whole", subject, text, trust))
        found += [judged(name, subject, changed, trust) for name, changed in damaged(text, chance)]
    assert found[0]["expect"]["verdict"] == "AUTHENTIC"
    (entry,) = re.findall(r"^fallen = .*?^]$", trust, re.MULTILINE | re.DOTALL)
    for number in range(TRUSTS):
        spoilt = trust.replace(entry, scribble(entry, chance, "{}[]:0129-eE.x=_+/é\u00a0"))
        found.append(judged(f"damaged trust {number}", subject, text, spoilt))
    found.append(judged("fallen since 0", subject, text, trust.replace(str(FELL), "0")))
    assert agreed(tmp_path, found) >= {("AUTHENTIC", 0), ("NOT_CHECKED", 7), ("NOT_CHECKED", 6), (None, 2)}


@pytest.mark.parametrize("erased", [False, True])
def test_both_implementations_agree_on_damaged_renewed_lineages(kin: Family, tmp_path: Path, erased: bool) -> None:
    bundle, chance = kin.bundle, random.Random(f"lineages {erased}")
    if erased:
        records = [renewal.as_record(bundle.seals[place]) for place in (kin.ORIGINAL, kin.CHILD)]
        parts = {"seals": (bundle.seals[kin.COLLAGE],), "records": (*records, *bundle.records)}
        bundle = bundle.model_copy(update=parts)
    text, trust = evidence.write(bundle).decode(), text_of(kin.trust(STATE_BLOCK, 33, sha256=FELL))
    cases = [judged("whole", kin.collage, text, trust)]
    cases += [judged(name, kin.collage, changed, trust) for name, changed in damaged(text, chance)]
    assert agreed(tmp_path, cases) >= {("DERIVED", 0), ("NOT_CHECKED", 7)}


def damaged(text: str, chance: random.Random) -> Iterator[tuple[str, str]]:
    """(name, bundle) with one thing changed at random: anywhere, or in what is said of its renewals."""
    for number in range(DAMAGES):
        changed = damage(json.loads(text), chance)
        if not NULL_MEMBER.search(changed):
            yield f"damage {number}", changed
    for number in range(RENEWALS):
        bundle = json.loads(text)
        holders = [one for one in (*bundle["seals"], *bundle.get("records", ())) if "renewed" in one]
        holder, name = (bundle, "renewals") if chance.random() < 0.4 else (chance.choice(holders), "renewed")
        part = json.loads(damage({name: holder.pop(name)}, chance))
        holder.update(part)
        yield f"damaged renewal {number}", json.dumps(bundle)
