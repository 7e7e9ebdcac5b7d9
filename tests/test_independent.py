"""The second implementation (tests/independent, JavaScript, written from FORMAT.md alone) says what this one says.

It replays every committed vector, and judges damaged and unusual evidence that is made up here, where the two must agree.
"""

from __future__ import annotations

import base64
import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from ledger.core import contracts, evidence, merkle, trust, verify
from ledger.core.contracts import Beacon, KeyState, key_slots
from ledger.core.errors import EvidenceInvalid, FixInput
from ledger.core.evidence import BeaconPart, Bundle, RecordPart
from ledger.core.pixels import PixelDigest
from ledger.core.records import Role, SignedRecord
from ledger.core.search import Evidence, Subject
from ledger.core.signatures import ORDERS
from ledger.core.trust import DeviceNotice, Facts, KeyNotice, Trust
from ledger.core.typeddata import Domain
from ledger.core.verdict import Token
from ledger.dicom import read
from ledger.keys.signers import Curve, new_key
from tests.core.conftest import make_subject
from tests.simulators.ledger import ANCHOR_LOG, CHAIN_ID, REGISTRY, START, World
from tests.test_vectors import trail

HERE = Path(__file__).parent
KINDS = sorted(f"{path.parent.name}/{path.stem}" for path in (HERE / "vectors").glob("*/*.json"))
ACME = {"Manufacturer": "Acme", "ManufacturerModelName": "CT 3000", "DeviceSerialNumber": "4711"}
Case = dict[str, Any]


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A script of the second implementation. A missing node is a failure, not a skip."""
    node = shutil.which("node")
    if node is None:
        pytest.fail("node is missing: install Node 18 or newer, then `npm ci`")
    command = [node, str(HERE / "independent" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def replay(*folders: Path) -> subprocess.CompletedProcess[str]:
    return run("replay.mjs", *folders)


def test_the_example_of_the_format_is_authentic(tmp_path: Path) -> None:
    example = HERE.parent / "docs" / "example"
    image = read((example / "image.dcm").read_bytes())
    subject: Case = {
        "attributes": dict(image.attributes),
        "digests": {"px1-sha256": str(image.digest("px1-sha256"))},
        "refusals": {},
    }
    files: list[str | Path] = [
        "--bundle",
        example / "image.dcm.seal.json",
        "--trust",
        example / "trust.toml",
        "--subject",
        tmp_path / "subject.json",
    ]

    def verdict() -> Any:
        (tmp_path / "subject.json").write_text(json.dumps(subject), encoding="utf-8")
        done = run("verify.mjs", *files)
        found = json.loads(done.stdout)
        assert done.returncode == found["exit_code"]
        return found["verdict"], found["differing"]

    assert verdict() == ("AUTHENTIC", [])
    subject["attributes"]["PatientID"] = "another"
    assert verdict() == ("MISMATCH", ["PatientID"])


def test_every_vector_gives_what_it_expects() -> None:
    done = replay()
    assert done.returncode == 0, done.stdout + done.stderr
    replayed = dict(re.findall(r"^(\S+): (\d+) replayed, 0 failed$", done.stdout, re.MULTILINE))
    assert sorted(replayed) == KINDS
    assert all(int(count) > 0 for count in replayed.values())


def test_a_vector_that_fails_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    cases = json.loads((HERE / "vectors" / "log" / "inclusion.json").read_text(encoding="utf-8"))
    (folder / "inclusion.json").write_text(json.dumps([{**cases[0], "root": "00" * 32}]), encoding="utf-8")
    done = replay(folder)
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1] == "0 passed, 1 failed"


def test_both_implementations_agree_on_damaged_and_unusual_evidence(tmp_path: Path) -> None:
    folder = tmp_path / "bundles"
    folder.mkdir()
    cases = [*unusual(), *damaged(300, random.Random("scanseal"))]
    (folder / "made.json").write_text(json.dumps(cases), encoding="utf-8")
    assert {case["expect"]["verdict"] for case in cases} >= {*map(str, Token)} - {"DERIVED", "DECLARED_SYNTHETIC"}
    done = replay(folder)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr


# ---- what this implementation says ----


def judged(name: str, subject: Subject, bundle: Bundle | str, trusted: Trust | str, facts: Case | None = None) -> Case:
    """A vector whose `expect` is this implementation's answer."""
    facts = {"blocks": {}, "settled": -1, "keys": {}, "devices": {}} | (facts or {})
    bundle = bundle if isinstance(bundle, str) else evidence.write(bundle).decode()
    trusted = trusted if isinstance(trusted, str) else text_of(trusted)
    digests = {profile: str(digest) for profile, digest in subject.digests.items()}
    return {
        "name": name,
        "expect": expected(subject, trusted, bundle, facts),
        "subject": {"attributes": dict(subject.attributes), "digests": digests, "refusals": {}},
        "trust": trusted,
        "bundle": bundle,
        "facts": facts,
    }


def expected(subject: Subject, trust_text: str, bundle: str, facts: Case) -> Case:
    known = evidence_of(trust_text, bundle, json.dumps(facts))
    if isinstance(known, dict):
        return known
    found = verify.verify(subject, known)
    return {
        "verdict": str(found.token),
        "exit_code": found.exit_code,
        "differing": list(found.differing),
        "sealed_between": list(found.sealed_between),
        "custody": trail(found),
    }


@lru_cache(maxsize=1)
def evidence_of(trust_text: str, bundle: str, facts_text: str) -> Evidence | Case:
    """What a verifier was given, for many images; or what it says of each where one of these cannot be read."""
    try:
        trusted = trust.parse(trust_text)
    except FixInput:
        return {"verdict": None, "exit_code": 2}
    try:
        parsed = evidence.parse(bundle.encode())
    except EvidenceInvalid:
        return {"verdict": "NOT_CHECKED", "exit_code": 7}
    facts = json.loads(facts_text)
    known = Facts(
        {int(number): bytes.fromhex(word[2:]) for number, word in facts["blocks"].items()},
        facts["settled"],
        {
            bytes.fromhex(key[2:]): KeyState.from_words(*(int(word, 16) for word in words))
            for key, words in facts["keys"].items()
        },
        {bytes.fromhex(device[2:]): since for device, since in facts["devices"].items()},
    )
    return Evidence([parsed], trusted, known)


def text_of(trusted: Trust) -> str:
    return tomli_w.dumps(trusted.model_dump(exclude_defaults=True) | {"format": trusted.format})


# ---- unusual evidence: what a chain, a site or a thief may do that the committed vectors don't show ----


def unusual() -> Iterator[Case]:
    yield from forged_records()
    yield from news_of_keys()
    yield from pixels_and_instances()
    yield from beacons()
    yield from devices_that_seal_everything()


def forged_records() -> Iterator[Case]:
    """What a dishonest log may take in: its entries are anchored, and only the signature or the content is wrong."""
    jane = make_subject()
    curves: tuple[Curve, ...] = ("secp256k1", "p256")
    for curve in curves:
        world = World(curve)
        thief, order = new_key(curve), ORDERS[curve if curve == "secp256k1" else "secp256r1"]
        honest = world.seal(jane, in_log=False)
        record, r, s = honest.record.value, honest.signature[:32], int.from_bytes(honest.signature[32:], "big")
        signatures = {
            "the high s": r + (order - s).to_bytes(32, "big"),
            "s of zero": r + bytes(32),
            "r and s of zero": bytes(64),
            "r over the order": b"\xff" * 32 + honest.signature[32:],
            "another key": thief.sign(record.id(world.domain)),
            "another chain": world.signer.sign(record.id(Domain(1, ANCHOR_LOG))),
            "another contract": world.signer.sign(record.id(Domain(CHAIN_ID, REGISTRY))),
            "the honest one": honest.signature,
        }
        for name, signature in signatures.items():
            world.entries = [SignedRecord(record, signature).entry()]
            sealed = world.anchored([honest.model_copy(update={"signature": signature})])
            yield judged(f"signed with {name}, {curve}", jane, sealed, world.trust(8))

        few = honest.leaf_hashes[:-1]
        profiles = (
            "attributes-1",
            "px1-sha256",
            "px1-sha256/attributes-2",
            "px1-sha256/attributes-1/",
            "px9-sha256/attributes-1",
        )
        records = {name: (replace(record, profile=name), honest.leaf_hashes) for name in profiles}
        records["a leaf too few"] = replace(record, content=merkle.root_of(few)), few
        for name, (changed, leaves) in records.items():
            signature = world.signer.sign(changed.id(world.domain))
            world.entries = [SignedRecord(changed, signature).entry()]
            parts = {"record": RecordPart.of(changed), "signature": signature, "leaves": b"".join(leaves)}
            yield judged(
                f"sealed with {name}, {curve}", jane, world.anchored([honest.model_copy(update=parts)]), world.trust(8)
            )

    world = World()
    sealed = world.anchored([world.seal(jane)])
    other = world.certify(world.signer, world.device).der
    yield judged(
        "a certificate that is not enrolled", jane, sealed.model_copy(update={"certificates": (other,)}), world.trust(8)
    )
    last = int((world.certificate.x509.not_valid_after_utc.timestamp() - START) // 10)
    for block in (last, last + 1):
        world = World()
        made = world.seal(jane, claimed_time=world.time_of(block))
        sealed = world.anchored([made], block=block, state_block=block)
        yield judged(f"block {block}, the certificate's last or after it", jane, sealed, world.trust(block))
    end = int(world.site.x509.not_valid_after_utc.timestamp())
    for claimed in (end, end + 1):
        waiting = World()
        unanchored = waiting.bundle([waiting.seal(jane, claimed_time=claimed)])
        yield judged(
            f"not anchored, claimed {claimed}, the authority's last second or after it", jane, unanchored, waiting.trust()
        )
    for claimed in (START + 30 - 301, START + 30 - 300, START + 50 + 300, START + 50 + 301):
        world = World()
        sealed = world.anchored([world.seal(jane, claimed_time=claimed)])
        yield judged(f"claimed {claimed}", jane, sealed, world.trust(8))


def news_of_keys() -> Iterator[Case]:
    jane = make_subject()
    changes: dict[str, Case] = {
        "fresh news of retirement": {"retired": START + 40},
        "fresh news of theft": {"compromised": START + 50},
        "a role taken away": {"roles": Role.READ},
        "nothing new": {},
    }
    for name, change in changes.items():
        world = World()
        sealed = world.anchored([world.seal(jane)])
        waiting = world.bundle([world.seal(jane, in_log=False)])
        world.enrol(world.signer, world.certificate, **change)
        first, second = (f"0x{world.storage[REGISTRY][slot]:064x}" for slot in key_slots(world.signer.key))
        key = "0x" + world.signer.key.hex()
        yield judged(name, jane, sealed, world.trust(8), {"keys": {key: [first, second]}})
        yield judged(f"{name}, not anchored", jane, waiting, world.trust(8), {"keys": {key: [first, second]}})
        yield judged(f"{name}, another certificate", jane, sealed, world.trust(8), {"keys": {key: ["0x" + "11" * 32, second]}})

    world = World()
    waiting = world.bundle([world.seal(jane)])
    notice = KeyNotice(key=world.signer.key, compromised_since=START + 10_000)
    yield judged("not anchored, a theft known", jane, waiting, world.trust(keys=(notice,)))
    world.storage[REGISTRY] = dict.fromkeys(key_slots(world.signer.key), 0) | {b"\1" * 32: 1}
    sealed = world.anchored([world.seal(jane)])
    yield judged("a key that was never enrolled", jane, sealed, world.trust(8))
    yield judged("the same, at a block that nobody vouches for", jane, sealed, world.trust())


def pixels_and_instances() -> Iterator[Case]:
    jane = make_subject()
    world = World("p256")
    codestream = Subject(jane.attributes, {"cs1-sha256": PixelDigest("cs1-sha256", b"\7" * 32)})
    decoded = jane.digests["px1-sha256"]
    sealed = world.anchored([world.seal(codestream, "cs1-sha256", decoder="some decoder 1.0", decoded=decoded)])
    yield judged("a codestream", codestream, sealed, world.trust(8))
    yield judged("a codestream, decoded", jane, sealed, world.trust(8))
    elsewhere = replace(jane, attributes=dict(jane.attributes) | {"SOPInstanceUID": "9.9"})
    yield judged("a codestream, decoded, as another instance", elsewhere, sealed, world.trust(8))
    yield judged("a codestream, decoded otherwise", make_subject(2), sealed, world.trust(8))
    yield judged("no digest of the sealed profile", Subject(jane.attributes, {}), sealed, world.trust(8))

    world = World()
    seals = [world.seal(make_subject(number), in_log=number != 1) for number in range(3)]
    sealed = world.anchored([seals[0], seals[2]])
    for number in range(3):
        yield judged(f"an instance sealed twice, {number}", make_subject(number), sealed, world.trust(8))
    sealed = world.anchored([world.seal(jane, claimed_time=START + 10_000), world.seal(jane)])
    yield judged("a late and a punctual clock", jane, sealed, world.trust(8))


def beacons() -> Iterator[Case]:
    jane = make_subject()
    for number in range(3):
        world = World()
        block = world.hash_of(3)
        looked = ([Beacon(3, bytes(32))], [Beacon(4, block)], [Beacon(2, bytes(32)), Beacon(3, block)])[number]
        made = with_beacons(world, world.anchored([world.seal(jane, claimed_time=START - 1000)]), looked)
        facts = {"blocks": {"3": "0x" + block.hex()}, "settled": 8}
        yield judged(f"beacons {number}", jane, made, world.trust(8))
        yield judged(f"beacons {number}, in the trust file", jane, made, world.trust(8, 3))
        yield judged(f"beacons {number}, on the chain", jane, made, world.trust(8), facts)
        made = with_beacons(world, world.anchored([world.seal(jane, beacon_hash=bytes(32))]), looked)
        yield judged(f"beacons {number}, a record without", jane, made, world.trust(8))
        yield judged(f"beacons {number}, without headers", jane, made.model_copy(update={"headers": ()}), world.trust(8))


def devices_that_seal_everything() -> Iterator[Case]:
    world = World()
    empty = world.bundle([])
    for since in (START, START + 86_400, 4_000_000_000):
        notice = DeviceNotice(device=world.device.id, name="CT1", seals_everything_since=since)
        facts = {"devices": {"0x" + world.device.id.hex(): since}}
        for day in (None, "20231114", "20231115", "20231116", "2023", "x2023111"):
            bare = make_subject(1, StudyDate=None, AcquisitionDate=day, **ACME)
            yield judged(f"since {since}, made {day}", bare, empty, world.trust(devices=(notice,)))
            yield judged(f"the chain: since {since}, made {day}", bare, empty, world.trust(), facts)
    whole = make_subject(1, StudyDate=None, **ACME)
    yield judged("a device that nobody speaks of", whole, empty, world.trust())
    yield judged(
        "a device that the chain says does not", whole, empty, world.trust(), {"devices": dict.fromkeys(facts["devices"], 0)}
    )
    yield judged("no device named whole", make_subject(Manufacturer="Acme"), empty, world.trust(devices=(notice,)), facts)


def with_beacons(world: World, made: Bundle, looked: list[Beacon]) -> Bundle:
    """The bundle as if the contract had looked these beacons up."""
    old, size = made.anchors[0], len(world.entries)
    root = merkle.root_of([merkle.leaf_hash(entry) for entry in world.entries])
    commitment = contracts.anchor_commitment(root, old.old_size, old.block_number, old.block_time, looked)
    world.storage[ANCHOR_LOG][contracts.anchor_slot(world.log_id, size)] = int.from_bytes(commitment, "big")
    parts = tuple(BeaconPart(number=beacon.number, hash=beacon.hash) for beacon in looked)
    anchor = old.model_copy(update={"beacons": parts})
    return made.model_copy(update={"anchors": (anchor,), "states": (world.state(8),)})


# ---- damage ----


def damaged(count: int, chance: random.Random) -> Iterator[Case]:
    """Bundles, trust files and images with one thing changed at random, on two ledgers."""
    curves: tuple[Curve, ...] = ("secp256k1", "p256")
    for curve in curves:
        world = World(curve)
        subjects = [make_subject(seed, SOPInstanceUID=f"1.2.{seed}") for seed in range(2)]
        bundle = evidence.write(world.anchored([world.seal(subject, tiles=True) for subject in subjects])).decode()
        trusted = text_of(world.trust(8))
        # How strictly X.509 is read is its library's affair, as is what TOML 1.1 adds to 1.0: both are left alone.
        first, studies, others = bundle.partition(',"studies"')
        ours, pem, rest = trusted.partition("-----BEGIN")
        for number in range(count // 2):
            scribbled = first + scribble(studies + others, chance)
            changed = damage(json.loads(bundle), chance) if chance.random() < 0.8 else scribbled
            yield judged(f"damage {number}, {curve}", subjects[0], changed, trusted)
        for number in range(count // 20):
            scribbled = scribble(ours, chance, "{}[]:0129-eE.x=_+/é\u00a0") + pem + rest
            yield judged(f"damaged trust {number}, {curve}", subjects[0], bundle, scribbled)


def damage(bundle: Any, chance: random.Random) -> str:
    """The bundle with one value changed, dropped, doubled or replaced."""
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], dict | list) and key != "certificates":
                walk(value[key])

    walk(bundle)
    weights = [0.05 if isinstance(parent, list) and isinstance(parent[key], str) else 1 for parent, key in places]
    parent, key = chance.choices(places, weights)[0]
    value = parent[key]
    how = chance.randrange(8)
    if how == 0:
        del parent[key]
    elif how == 1 and isinstance(parent, list):
        parent.insert(chance.randrange(len(parent) + 1), value)
    elif how == 2:
        parent[key] = chance.choice([None, True, "", [], {}, 0, -1, 1.0, 1 << 64, "AA", value])
    elif isinstance(value, int):
        parent[key] = chance.choice([value + 1, max(value - 1, 0), 0, (1 << 64) - 1, value ^ 1 << chance.randrange(40)])
    elif isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]+", value):
        data = bytearray(base64.urlsafe_b64decode(value + "==")) if len(value) % 4 != 1 else bytearray(value.encode())
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        parent[key] = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    elif isinstance(value, str):
        parent[key] = scribble(value or "x", chance)
    else:
        parent[key] = chance.choice([[], [value], list(value)[::-1] if isinstance(value, list) else {**value, "x": 1}])
    return json.dumps(bundle)


def scribble(text: str, chance: random.Random, characters: str = ' \t\n"\\{}[],:0129-eE.x=_+/é\u00a0\ufeff') -> str:
    """The text with one character changed, dropped, doubled, or cut off there."""
    at = chance.randrange(len(text))
    middle = chance.choice(["", text[at] * 2, chance.choice(characters), None])
    return text[:at] if middle is None else text[:at] + middle + text[at + 1 :]
