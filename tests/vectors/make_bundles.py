"""Vectors of records, commitments and whole verdicts. Keys are fresh each time: a new file proves the same with other bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import tomli_w

from ledger.core import content, evidence
from ledger.core.evidence import Bundle, Seal
from ledger.core.records import (
    AcquisitionRecord,
    Approval,
    CustodyRecord,
    GatewayRecord,
    ManifestRecord,
    Record,
    Role,
    SyntheticRecord,
)
from ledger.core.search import Subject
from ledger.core.strict import from_b64, to_b64
from ledger.core.trust import DeviceNotice, KeyNotice, Trust
from ledger.core.typeddata import Domain
from tests.core.conftest import make_subject
from tests.simulators.ledger import START, World
from tests.vectors import make_lineage, make_renewals, make_statements

Case = dict[str, Any]
FILES = ("bundles/verdicts", "bundles/lineage", "bundles/renewals", "records/records", "records/content", "records/statements")
JANE = make_subject()


def vectors() -> dict[str, list[Case]]:
    """File name -> cases."""
    return {
        "bundles/verdicts": verdicts(),
        "bundles/lineage": make_lineage.lineages(),
        "bundles/renewals": make_renewals.renewals(),
        "records/records": records(),
        "records/content": contents(),
        "records/statements": make_statements.statements(),
    }


def records() -> list[Case]:
    """Records of every type, their domain, and what comes out of them."""
    head = b"\1" * 32, "px1-sha256/attributes-1", b"\2" * 32, 7, b"\3" * 32, START, 42, b"\4" * 32
    parents = tuple(bytes([number]) * 32 for number in range(5, 8))
    acquired, devnet = AcquisitionRecord(*head), Domain(31337, b"\xaa" * 20)
    cases: list[tuple[str, Record, Domain]] = [
        ("a devnet", acquired, devnet),
        ("a large chain id", acquired, Domain(2**40 + 1, bytes(range(20)))),
        ("generated", SyntheticRecord(*head, "StyleGAN3 (weights 8c1f)"), devnet),
        ("held by a gateway", GatewayRecord(*head), devnet),
        ("of one parent", CustodyRecord(*head, parents[:1], "stored", "{}"), devnet),
        ("of three parents", CustodyRecord(*head, parents, "derived", '{"operation":"ai-result","changed":[]}'), devnet),
        ("of no parent, and not ASCII", CustodyRecord(*head, (), "", '{"tool":"é山"}'), devnet),
        ("a manifest", ManifestRecord(*head, "heartbeat", 2**40 + 1), devnet),
        ("an approval", Approval(*head, "Dr. Ada Müller", "reviewed"), devnet),
    ]
    return [_record(*case) for case in cases]


def _record(name: str, record: Record, domain: Domain) -> Case:
    def shown(value: Any) -> Any:
        if isinstance(value, tuple):
            return [shown(one) for one in value]
        return "0x" + value.hex() if isinstance(value, bytes) else value

    return {
        "name": name,
        "expect": "valid",
        "chain_id": domain.chain_id,
        "verifying_contract": shown(domain.verifying_contract),
        "record": {"type": record.TYPE} | {member: shown(value) for member, value in vars(record).items()},
        "encoded": shown(record.encoded()),
        "record_id": shown(record.id(domain)),
    }


def contents() -> list[Case]:
    """Values of items, a study secret, and the root and leaves that commit to them."""
    secret = bytes(range(32))
    cases = []
    for name, changes in (
        ("a CT", {}),
        ("absent and not ASCII", {"PatientName": "Müller^Jürgen=山田^太郎", "PatientID": None}),
    ):
        subject = make_subject(**changes)
        digest = str(subject.digests["px1-sha256"])
        key = content.image_key(secret, digest, subject.instance)
        values = dict(subject.attributes) | {content.PIXELS: digest}
        sealed = content.commit(values, content.Salts(key))
        cases.append(
            {
                "name": name,
                "expect": "valid",
                "study_secret": "0x" + secret.hex(),
                "values": values,
                "image_key": to_b64(key),
                "find_key": to_b64(content.find_key(secret)),
                "leaves": to_b64(b"".join(sealed.leaves)),
                "root": "0x" + sealed.root.hex(),
            }
        )
    return [*cases, _derived_content(secret)]


def _derived_content(secret: bytes) -> Case:
    """A de-identified image: what was kept has the parent's salts."""
    parent, changed = make_subject(), ("PatientName", "PatientID", "SOPInstanceUID")
    child = make_subject(PatientName="S01", PatientID="S01", SOPInstanceUID="1.9")
    digest, record_id = str(child.digests["px1-sha256"]), b"\5" * 32
    theirs = content.image_key(secret, digest, parent.instance)
    values = dict(child.attributes) | {content.PIXELS: digest}
    key = content.derived_key(secret, record_id, values)
    kept = {item: content.Salts(theirs).salt(item) for item in content.ITEMS if item not in changed}
    sealed = content.commit(values, content.Salts(key, kept))
    return {
        "name": "derived",
        "expect": "valid",
        "study_secret": "0x" + secret.hex(),
        "values": values,
        "parent": "0x" + record_id.hex(),
        "parent_image_key": to_b64(theirs),
        "changed": list(changed),
        "image_key": to_b64(key),
        "find_key": to_b64(content.find_key(secret)),
        "kept": to_b64(b"".join(kept.values())),
        "leaves": to_b64(b"".join(sealed.leaves)),
        "root": "0x" + sealed.root.hex(),
    }


def verdicts() -> list[Case]:
    """Evidence, trust file, facts and an image, with the verdict that they deserve."""
    return [*_in_order(), *_about_the_image(), *_about_the_key(), *_about_the_block(), *_damaged()]


def _sealed(name: str, expect: tuple[str, int], world: World, *seals: Seal) -> Case:
    """JANE, with these seals anchored and a trust file that knows the block."""
    bundle = world.anchored(list(seals))
    return _case(name, expect, JANE, world.trust(8), bundle)


def _case(name: str, expect: tuple[str, int], subject: Subject, trust: Trust, bundle: Bundle | str, **facts: Any) -> Case:
    digests = {profile: str(digest) for profile, digest in subject.digests.items()}
    text = bundle if isinstance(bundle, str) else evidence.write(bundle).decode()
    empty: Case = {"blocks": {}, "settled": -1, "keys": {}, "devices": {}}
    return {
        "name": name,
        "expect": {"verdict": expect[0], "exit_code": expect[1]},
        "subject": {"attributes": dict(subject.attributes), "digests": digests, "refusals": {}},
        "trust": tomli_w.dumps(trust.model_dump(exclude_defaults=True) | {"format": trust.format}),
        "bundle": text,
        "facts": empty | facts,
    }


def _in_order() -> list[Case]:
    cases = []
    for curve in ("secp256k1", "p256"):
        for profile in ("px1-sha256", "px1-blake3"):
            world = World(curve)
            bundle = world.anchored([world.seal(JANE, profile, tiles=True)])
            cases.append(_case(f"in order, {curve}, {profile}", ("AUTHENTIC", 0), JANE, world.trust(8), bundle))
    world = World()
    subjects = [make_subject(seed, SOPInstanceUID=f"1.2.{seed}") for seed in range(5)]
    many = world.anchored([world.seal(subject) for subject in subjects])
    cases.append(_case("one of five", ("AUTHENTIC", 0), subjects[3], world.trust(8), many))
    settled = {"blocks": {"8": "0x" + world.hash_of(8).hex()}, "settled": 8}
    cases.append(_case("the chain vouches", ("AUTHENTIC", 0), subjects[3], world.trust(), many, **settled))
    cases.append(_case("not settled yet", ("PENDING", 4), subjects[3], world.trust(), many, **settled | {"settled": 7}))
    world = World()
    cases.append(_case("not anchored yet", ("PENDING", 4), JANE, world.trust(), world.bundle([world.seal(JANE)])))
    return cases


def _about_the_image() -> list[Case]:
    world = World()
    bundle, trust = world.anchored([world.seal(JANE)]), world.trust(8)
    device = {"Manufacturer": "Acme", "ManufacturerModelName": "CT 3000", "DeviceSerialNumber": "4711"}
    notice = DeviceNotice(device=world.device.id, name="CT1", seals_everything_since=START)
    stripped = make_subject(9, SOPInstanceUID="9.9", StudyDate="20991231", **device)
    older = make_subject(9, SOPInstanceUID="9.9", StudyDate="19991231", **device)
    knowing = world.trust(8, devices=(notice,))
    other = make_subject(3, SOPInstanceUID="9.9")
    return [
        _case("other pixels", ("ALTERED", 1), make_subject(2), trust, bundle),
        _case("another patient", ("MISMATCH", 1), make_subject(PatientID="0815"), trust, bundle),
        _case("another spacing", ("MISMATCH", 1), make_subject(PixelSpacing="1\\1"), trust, bundle),
        _case("an attribute that was absent", ("MISMATCH", 1), make_subject(Laterality="L"), trust, bundle),
        _case("another instance", ("MISMATCH", 1), make_subject(SOPInstanceUID="9.9"), trust, bundle),
        _case("another image", ("UNREGISTERED", 3), other, trust, bundle),
        _case("no record of a device that seals everything", ("STRIPPED", 1), stripped, knowing, bundle),
        _case("older than that", ("UNREGISTERED", 3), older, knowing, bundle),
    ]


def _about_the_key() -> list[Case]:
    cases = []
    enrolments: list[tuple[str, Case, tuple[str, int]]] = [
        ("enrolled in the anchor's second", {"enrolled": START + 50}, ("AUTHENTIC", 0)),
        ("enrolled later", {"enrolled": START + 51}, ("REVOKED", 1)),
        ("retired in that second", {"retired": START + 50}, ("AUTHENTIC", 0)),
        ("retired before", {"retired": START + 49}, ("REVOKED", 1)),
        ("compromised later", {"compromised": START + 51}, ("AUTHENTIC", 0)),
        ("compromised by then", {"compromised": START + 50}, ("REVOKED", 1)),
        ("without the role", {"roles": Role.HOLD}, ("REVOKED", 1)),
    ]
    for name, enrolment, expect in enrolments:
        world = World()
        world.enrol(world.signer, world.certificate, **enrolment)
        cases.append(_sealed(name, expect, world, world.seal(JANE)))
    world = World()
    bundle = world.anchored([world.seal(JANE)])
    news = world.trust(8, keys=(KeyNotice(key=world.signer.key, compromised_since=START + 50),))
    cases.append(_case("younger news of theft", ("REVOKED", 1), JANE, news, bundle))
    foreign = World()
    accepted = world.trust(8, authorities=foreign.trust().authorities)
    cases.append(_case("a foreign authority", ("REVOKED", 1), JANE, accepted, bundle))
    world = World()
    twice = [world.seal(JANE), world.seal(make_subject(2, SOPInstanceUID="9.9"), counter=0, previous=bytes(32))]
    cases.append(_sealed("two records in one slot", ("REVOKED", 1), world, *twice))
    for name, claimed, expect in (
        ("a clock within the tolerance", START + 30 - 300, ("AUTHENTIC", 0)),
        ("back-dated", START + 30 - 301, ("MISMATCH", 1)),
        ("post-dated", START + 50 + 301, ("MISMATCH", 1)),
    ):
        world = World()
        cases.append(_sealed(name, expect, world, world.seal(JANE, claimed_time=claimed)))
    return cases


def _about_the_block() -> list[Case]:
    world = World()
    bundle = world.anchored([world.seal(JANE)])
    unknown, known = world.trust(), world.trust(8)
    wrong_code = known.model_copy(update={"anchor_log": known.anchor_log.model_copy(update={"code_hash": bytes(32)})})
    elsewhere = known.model_copy(update={"chain_id": 1})
    other = {"blocks": {"8": "0x" + bytes(32).hex()}, "settled": 8}
    return [
        _case("a block that nobody vouches for", ("NOT_CHECKED", 6), JANE, unknown, bundle),
        _case("another block at that height", ("NOT_CHECKED", 6), JANE, unknown, bundle, **other),
        _case("the chain contradicts the trust file", ("NOT_CHECKED", 6), JANE, known, bundle, **other),
        _case("other code at the address", ("NOT_CHECKED", 7), JANE, wrong_code, bundle),
        _case("another chain", ("NOT_CHECKED", 7), JANE, elsewhere, bundle),
    ]


def _damaged() -> list[Case]:
    world = World()
    text = evidence.write(world.anchored([world.seal(JANE), world.seal(make_subject(2, SOPInstanceUID="9.9"))])).decode()
    trust = world.trust(8)
    whole = json.loads(text)
    seal = whole["seals"][0]

    def changed(change: Callable[[Case], None]) -> str:
        copied = json.loads(text)
        change(copied)
        return json.dumps(copied)

    def flip(holder: Callable[[Case], Any], name: Any) -> str:
        def change(bundle: Case) -> None:
            place = holder(bundle)
            data = bytearray(from_b64(place[name]))
            data[len(data) // 2] ^= 1
            place[name] = to_b64(bytes(data))

        return changed(change)

    def first(bundle: Case) -> Case:
        return bundle["seals"][0]

    damaged = {
        "signature": flip(first, "signature"),
        "leaves": flip(first, "leaves"),
        "image key": flip(first, "image_key"),
        "look-up tokens": flip(first, "find"),
        "inclusion path": flip(lambda bundle: first(bundle)["included"], "path"),
        "content": flip(lambda bundle: first(bundle)["record"], "content"),
        "beacon hash": flip(lambda bundle: first(bundle)["record"], "beacon_hash"),
        "state header": flip(lambda bundle: bundle["states"][0], "header"),
        "certificate": flip(lambda bundle: bundle["certificates"], 0),
        "find key of the study": flip(lambda bundle: bundle["studies"], 0),
        "beacon header": flip(lambda bundle: bundle["headers"], 0),
        "log key": flip(lambda bundle: bundle["ledger"], "log_key"),
        "counter": changed(lambda bundle: first(bundle)["record"].update(counter=5)),
        "log index": changed(lambda bundle: first(bundle)["included"].update(index=1)),
        "block time": changed(lambda bundle: bundle["anchors"][0].update(block_time=START + 51)),
        "old size": changed(lambda bundle: bundle["anchors"][0].update(old_size=1)),
        "checkpoint": changed(
            lambda bundle: bundle["anchors"][0].update(checkpoint=bundle["anchors"][0]["checkpoint"].replace("\n2\n", "\n3\n"))
        ),
        "no trie nodes": changed(lambda bundle: bundle["states"][0].update(nodes=[])),
        "no certificates": changed(lambda bundle: bundle.update(certificates=[])),
    }
    hostile = {
        "an unknown member": changed(lambda bundle: bundle.update(more=1)),
        "a missing member": changed(lambda bundle: first(bundle).pop("leaves") and None),
        "a repeated member": text.replace('{"format"', '{"format":"scanseal-bundle-1","format"', 1),
        "a number as text": changed(lambda bundle: first(bundle)["record"].update(counter="0")),
        "a fraction": text.replace('"counter":0,', '"counter":0.0,', 1),
        "padded base64": changed(lambda bundle: first(bundle).update(signature=seal["signature"] + "==")),
        "stray bits in base64": changed(lambda bundle: first(bundle).update(signature=seal["signature"][:-1] + "_")),
        "something after it": text + "{}",
        "cut off": text[:-5],
        "an index outside": changed(lambda bundle: first(bundle).update(study=7)),
        "nested deeply": text.replace('"certificates":[', '"certificates":[' + "[" * 40 + "]" * 40 + ",", 1),
        "another format": text.replace("scanseal-bundle-1", "scanseal-bundle-9"),
        "empty": "",
    }
    return [
        # Another header hash at a trusted height may as well be a re-org or a lying node: the ledger is out of reach (6).
        _case(f"damaged: {name}", ("NOT_CHECKED", 6 if name == "state header" else 7), JANE, trust, bundle)
        for name, bundle in (*damaged.items(), *hostile.items())
    ]
