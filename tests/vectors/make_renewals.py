"""Vectors of renewal (FORMAT.md §11) and of step 8a of §9: renewed in time, too late, of something else, or damaged."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import tomli_w

from ledger.core import contracts, evidence, merkle, renewal
from ledger.core.contracts import Beacon
from ledger.core.custody import Statement
from ledger.core.evidence import Bundle, Entry, RecordEntry, Renewal, Renewed, Seal
from ledger.core.pixels import PixelDigest
from ledger.core.proof import Proofs
from ledger.core.records import Role
from ledger.core.search import Subject
from ledger.core.strict import from_b64, to_b64
from ledger.core.trust import Facts, Fallen, KeyNotice, Trust
from tests.core.conftest import make_subject
from tests.simulators.ledger import ANCHOR_LOG, START, World
from tests.vectors.make_statements import DEIDENTIFY, derived

Case = dict[str, Any]
AnyEntry = TypeVar("AnyEntry", Seal, RecordEntry)
LOG: Final = b"\x77" * 32
BLOCK, STATE_BLOCK, OLD_SIZE = 20, 23, 3
ANCHORED, RENEWED = START + 50, START + 200
"""The times of the blocks that take the records, and what is renewed."""
FAR: Final = START + 1_000_000
IN_ORDER, DERIVED = ("AUTHENTIC", 0), ("DERIVED", 0)
NOT_CHECKED, OUT_OF_REACH, PENDING = ("NOT_CHECKED", 7), ("NOT_CHECKED", 6), ("PENDING", 4)


# ---- renewing --------------------------------------------------------------------------------------------------------


def renewed(
    world: World,
    bundle: Bundle,
    images: Mapping[int, Subject | None],
    *,
    block: int = BLOCK,
    state_block: int = STATE_BLOCK,
    log: bytes = LOG,
    beside: int = 0,
    beacons: tuple[Beacon, ...] = (),
) -> Bundle:
    """A bundle whose entries at these places are renewed in `block`, with their images where they are at hand: after `beside`
    others of the same batch. `beacons` are for what no renewal may have."""
    proofs = Proofs(bundle, world.trust(), Facts())
    entries: list[Entry] = list(bundle.entries)
    said = {place: None if image is None else image_hash(entries[place], image) for place, image in images.items()}
    leaves = [merkle.leaf_hash(bytes([number]) * 96, renewal.HASH) for number in range(beside)]
    for place, image in said.items():
        one = entries[place]
        opening = renewal.opening_hash(one) if isinstance(one, Seal) else None
        leaves.append(renewal.leaf_hash(renewal.evidence_hash(one, *renewal.around(proofs, one)), opening, image))
    root, new_size = merkle.root_of(leaves, renewal.HASH), OLD_SIZE + len(leaves)
    commitment = contracts.anchor_commitment(root, OLD_SIZE, block, world.time_of(block), beacons)
    world.storage[ANCHOR_LOG][contracts.anchor_slot(log, new_size)] = int.from_bytes(commitment, "big")
    part = Renewal(
        hash=renewal.HASH,
        log_id=log,
        old_size=OLD_SIZE,
        new_size=new_size,
        block_number=block,
        block_time=world.time_of(block),
        state=len(bundle.states),
    )
    for index, (place, image) in enumerate(said.items(), beside):
        path = b"".join(merkle.inclusion_path(leaves, index, renewal.HASH))
        new = Renewed(renewal=len(bundle.renewals), index=index, path=path, image=image)
        entries[place] = entries[place].model_copy(update={"renewed": (*(entries[place].renewed or ()), new)})
    count = len(bundle.seals)
    return bundle.model_copy(
        update={
            "seals": tuple(entries[:count]),
            "records": tuple(entries[count:]),
            "renewals": (*bundle.renewals, part),
            "states": (*bundle.states, world.state(state_block)),
        }
    )


def image_hash(entry: Entry, image: Subject) -> bytes:
    """What a renewal of a seal says of its image."""
    if not isinstance(entry, Seal):
        raise TypeError("only a seal has an image")
    return renewal.image_hashes(entry, image)[0]


def trusting(world: World, *blocks: int, **fallen: int) -> Trust:
    """A trust file that believes in these blocks, and says since when an algorithm can be broken."""
    news = tuple(Fallen.model_validate({"algorithm": name, "since": since}) for name, since in fallen.items())
    return world.trust(*blocks, fallen=news)


def with_renewed(bundle: Bundle, place: int, *renewals: Renewed) -> Bundle:
    """The bundle with other renewals of the seal at this place."""
    seals = list(bundle.seals)
    seals[place] = seals[place].model_copy(update={"renewed": renewals})
    return bundle.model_copy(update={"seals": tuple(seals)})


def shuffled(bundle: Bundle, chance: random.Random) -> Bundle:
    """The same evidence with every list of the bundle in another order."""

    def order(count: int) -> list[int]:
        return chance.sample(range(count), count)

    anchors, states, studies = order(len(bundle.anchors)), order(len(bundle.states)), order(len(bundle.studies))
    batches = order(len(bundle.renewals))

    def moved(entry: AnyEntry) -> AnyEntry:
        changes: Case = {}
        if entry.included:
            changes["included"] = entry.included.model_copy(update={"anchor": anchors.index(entry.included.anchor)})
        if entry.renewed:
            changes["renewed"] = tuple(
                one.model_copy(update={"renewal": batches.index(one.renewal)}) for one in reversed(entry.renewed)
            )
        if isinstance(entry, Seal):
            changes["study"] = studies.index(entry.study)
        return entry.model_copy(update=changes)

    def all_of(parts: Sequence[Any], places: Sequence[int]) -> tuple[Any, ...]:
        return tuple(parts[place] for place in places)

    stated = [
        tuple(one.model_copy(update={"state": states.index(one.state)}) for one in all_of(parts, places))
        for parts, places in ((bundle.anchors, anchors), (bundle.renewals, batches))
    ]
    return bundle.model_copy(
        update={
            "certificates": all_of(bundle.certificates, order(len(bundle.certificates))),
            "studies": all_of(bundle.studies, studies),
            "seals": tuple(map(moved, all_of(bundle.seals, order(len(bundle.seals))))),
            "records": tuple(map(moved, all_of(bundle.records, order(len(bundle.records))))),
            "anchors": stated[0],
            "states": all_of(bundle.states, states),
            "headers": all_of(bundle.headers, order(len(bundle.headers))),
            "renewals": stated[1],
        }
    )


@dataclass(frozen=True)
class Family:
    """Images in one bundle: two others, an original, what was made of it, a collage of both; a step of custody of the original.

    The original's record lies in the first anchor, the later ones in the second; each has a state of its own.
    """

    world: World
    bundle: Bundle
    original: Subject
    child: Subject
    collage: Subject

    ORIGINAL, CHILD, COLLAGE, STEP = 2, 3, 4, 5

    @property
    def images(self) -> dict[int, Subject | None]:
        """What `renewed` takes to renew all of them, and the step."""
        return {self.ORIGINAL: self.original, self.CHILD: self.child, self.COLLAGE: self.collage, self.STEP: None}

    @property
    def subjects(self) -> tuple[Subject, Subject, Subject]:
        return self.original, self.child, self.collage

    def trust(self, *blocks: int, **fallen: int) -> Trust:
        """Believes in the blocks of the records, and in these."""
        return trusting(self.world, 3, 4, 8, 9, *blocks, **fallen)


def family() -> Family:
    """A family of images in a new world, not renewed. The device's key is on secp256k1, all others are on P-256."""
    world = World()
    world.curve = "p256"
    gateway, _ = world.newcomer(Role.TRANSFORM | Role.HOLD, "GW")
    others = [make_subject(seed, SOPInstanceUID=f"9.9.{seed}") for seed in (7, 8)]
    original = make_subject()
    child = make_subject(PatientName="S01", PatientID="S01", SOPInstanceUID="1.9")
    collage = Subject(dict(child.attributes) | {"SOPInstanceUID": "1.10"}, make_subject(3).digests)
    seals = [world.seal(others[0]), world.seal(original, tiles=True)]
    first = world.anchored(seals)
    world.mine(4)
    world.beacon_block = 4
    made = world.derive(child, seals[1], DEIDENTIFY, signer=gateway)
    parents = tuple(one.record.value.id(world.domain) for one in (made, seals[1]))
    capture = derived("secondary-capture", "PixelData", "SOPInstanceUID")
    later = [world.seal(others[1]), made, world.derive(collage, made, capture, signer=gateway, parents=parents)]
    stored = world.step(seals[1], Statement("stored"), signer=gateway)
    second = world.anchored(later, records=[stored], state_block=9)

    def in_second(entry: AnyEntry) -> AnyEntry:
        if entry.included is None:
            raise TypeError("it is anchored")
        return entry.model_copy(update={"included": entry.included.model_copy(update={"anchor": 1})})

    parts = {
        "seals": (first.seals[0], in_second(second.seals[0]), first.seals[1], *map(in_second, second.seals[1:])),
        "records": tuple(map(in_second, second.records)),
        "anchors": (*first.anchors, second.anchors[0].model_copy(update={"state": 1})),
        "states": (*first.states, *second.states),
        "headers": (world.headers[3], world.headers[4]),
    }
    return Family(world, second.model_copy(update=parts), original, child, collage)


# ---- cases -----------------------------------------------------------------------------------------------------------


class _Cases:
    """Cases whose trust files and bundles are written out once each."""

    def __init__(self) -> None:
        self.cases: list[Case] = []

    def add(
        self, name: str, expect: tuple[str, int], subject: Subject, trust: Trust, bundle: Bundle | str, **more: Any
    ) -> None:
        """`more` are facts, and further members of `expect`."""
        facts: Case = {"blocks": {}, "settled": -1, "keys": {}, "devices": {}} | more.pop("facts", {})
        attributes = {keyword: value for keyword, value in subject.attributes.items() if value is not None}
        digests = {profile: str(digest) for profile, digest in subject.digests.items()}
        text = bundle if isinstance(bundle, str) else evidence.write(bundle).decode()
        self.cases.append(
            {
                "name": name,
                "expect": {"verdict": expect[0], "exit_code": expect[1], **more},
                "subject": {"attributes": attributes, "digests": digests, "refusals": {}},
                "trust": self._once("trust", tomli_w.dumps(trust.model_dump(exclude_defaults=True) | {"format": trust.format})),
                "bundle": self._once("bundle", text),
                "facts": facts,
            }
        )

    def _once(self, part: str, text: str) -> Any:
        """The text, or where it stands already."""
        return next(({"of": case["name"]} for case in self.cases if case[part] == text), text)


def renewals() -> list[Case]:
    """Evidence, trust file, facts and an image, with the verdict that they deserve."""
    cases = _Cases()
    for part in (_in_time, _of_images, _of_families, _signatures, _not_of_this, _blocks, _damaged):
        part(cases)
    return cases.cases


def _in_time(cases: _Cases) -> None:
    jane = make_subject()
    for profile in ("px1-sha256", "px1-blake3"):
        world = World("p256" if profile == "px1-blake3" else "secp256k1")
        old = world.anchored([world.seal(jane, profile, tiles=True)])
        new = renewed(world, old, {0: jane})
        for name, bundle, fallen, expect in (
            ("renewed, and SHA-256 stands", new, {}, IN_ORDER),
            ("renewed a second before SHA-256 fell", new, {"sha256": RENEWED + 1}, IN_ORDER),
            ("renewed in the second in which SHA-256 fell", new, {"sha256": RENEWED}, NOT_CHECKED),
            ("not renewed, and SHA-256 stands", old, {}, IN_ORDER),
            ("not renewed, and SHA-256 has fallen", old, {"sha256": FAR}, NOT_CHECKED),
        ):
            cases.add(f"{name}, {world.curve}, {profile}", expect, jane, trusting(world, 8, STATE_BLOCK, **fallen), bundle)

    world = World()
    once = renewed(world, world.anchored([world.seal(jane)]), {0: jane}, beside=4)
    twice = renewed(world, once, {0: jane}, block=30, state_block=33, beside=2, log=b"\x78" * 32)
    blocks = (8, STATE_BLOCK, 33)
    for name, since, expect in (
        ("after both", RENEWED + 101, IN_ORDER),
        ("between", RENEWED + 1, IN_ORDER),
        ("before both", RENEWED, NOT_CHECKED),
    ):
        cases.add(f"renewed twice, SHA-256 fell {name}", expect, jane, trusting(world, *blocks, sha256=since), twice)
    between = trusting(world, 8, STATE_BLOCK, sha256=RENEWED + 1)
    cases.add("nobody vouches for the later one, which is not needed", IN_ORDER, jane, between, twice)
    sooner = between.model_copy(update={"fallen": (*between.fallen, *trusting(world, sha256=RENEWED).fallen)})
    cases.add("of two dates of a fall the earlier counts", NOT_CHECKED, jane, sooner, twice)
    turned = sooner.model_copy(update={"fallen": sooner.fallen[::-1]})
    cases.add("the same, the earlier one first", NOT_CHECKED, jane, turned, twice)
    second = with_renewed(twice, 0, *(twice.seals[0].renewed or ())[1:])
    cases.add("the later renewal alone", IN_ORDER, jane, trusting(world, *blocks, sha256=FAR), second)
    waiting = world.bundle([world.seal(jane, in_log=False)])
    cases.add("not anchored yet, and SHA-256 has fallen", NOT_CHECKED, jane, trusting(world, sha256=FAR), waiting)


def _of_images(cases: _Cases) -> None:
    jane = make_subject(PatientName="Müller^Jürgen=山田^太郎", PatientID="", StationName=None)
    world = World()
    old = world.anchored([world.seal(jane, decoder="d\u00e9 1\n")])
    new, blocks = renewed(world, old, {0: jane}), (8, STATE_BLOCK)
    stands, fell = trusting(world, *blocks), trusting(world, *blocks, sha256=FAR)
    other = Subject(jane.attributes, dict(jane.digests) | {"px1-blake3": make_subject(9).digests["px1-blake3"]})
    bare = Subject(jane.attributes, {"px1-sha256": jane.digests["px1-sha256"]})
    altered = Subject(jane.attributes, make_subject(2).digests)
    swapped = Subject(dict(jane.attributes) | {"PatientID": None}, jane.digests)
    for when, trust in (("SHA-256 stands", stands), ("SHA-256 has fallen", fell)):
        has_fallen = trust is fell
        cases.add(f"an odd image, {when}", IN_ORDER, jane, trust, new)
        cases.add(f"a second image of the digest, {when}", NOT_CHECKED if has_fallen else IN_ORDER, other, trust, new)
        cases.add(f"no BLAKE3 digest, {when}", NOT_CHECKED if has_fallen else IN_ORDER, bare, trust, new)
        cases.add(f"other pixels, {when}", ("ALTERED", 1), altered, trust, new)
        cases.add(f"an empty value gone, {when}", ("MISMATCH", 1), swapped, trust, new, differing=["PatientID"])
        alone = renewed(world, old, {0: None}, state_block=24)
        believed = trusting(world, 8, 24, **({"sha256": FAR} if has_fallen else {}))
        cases.add(f"renewed without its image, {when}", NOT_CHECKED if has_fallen else IN_ORDER, jane, believed, alone)
    thief = KeyNotice(key=world.signer.key, compromised_since=START)
    cases.add("renewed, and the key was stolen", ("REVOKED", 1), jane, fell.model_copy(update={"keys": (thief,)}), new)

    world = World()
    pair = make_subject()
    stream = {f"cs1-{name}": PixelDigest(f"cs1-{name}", name.encode().ljust(32)) for name in ("sha256", "blake3")}
    original = Subject(pair.attributes, stream)
    seal = world.seal(original, "cs1-sha256", decoder="a decoder 1.0", decoded=pair.digests["px1-sha256"])
    first = renewed(world, world.anchored([seal]), {0: original})
    both = renewed(world, first, {0: pair}, log=b"\x78" * 32, state_block=24)
    fell = trusting(world, 8, STATE_BLOCK, 24, sha256=FAR)
    cases.add("a lossy original", IN_ORDER, original, fell, first)
    cases.add("a copy decoded from it, not renewed", NOT_CHECKED, pair, fell, first)
    cases.add("a copy decoded from it, while SHA-256 stands", IN_ORDER, pair, trusting(world, 8, STATE_BLOCK), first)
    cases.add("a lossy original, its copy renewed, too", IN_ORDER, original, fell, both)
    cases.add("a copy decoded from it, renewed, too", IN_ORDER, pair, fell, both)


def _of_families(cases: _Cases) -> None:
    made = family()
    world, new = made.world, renewed(made.world, made.bundle, made.images, beside=1)
    fell, stands = made.trust(STATE_BLOCK, sha256=FAR), made.trust(STATE_BLOCK)
    mixed = shuffled(new, random.Random("another order"))
    for where, bundle in (("", new), (", in another order", mixed)):
        cases.add(f"an original{where}", IN_ORDER, made.original, fell, bundle, custody=[["stored", None]])
        cases.add(f"made of it{where}", DERIVED, made.child, fell, bundle)
        cases.add(f"made of both{where}", DERIVED, made.collage, fell, bundle)
    for block, missing, expect in ((24, made.ORIGINAL, NOT_CHECKED), (25, made.CHILD, NOT_CHECKED), (26, made.STEP, DERIVED)):
        images = {place: image for place, image in made.images.items() if place != missing}
        partly = renewed(world, made.bundle, images, state_block=block)
        later = made.trust(block, sha256=FAR)
        cases.add(f"made of both, all renewed but entry {missing}", expect, made.collage, later, partly)
        cases.add(f"the same, entry {missing}, while SHA-256 stands", DERIVED, made.collage, made.trust(block), partly)
        if missing == made.STEP:
            cases.add("a step that was not renewed", IN_ORDER, made.original, later, partly, custody=[["stored", "role"]])

    def listed(bundle: Bundle, **changes: Any) -> Bundle:
        """The collage, its ancestors as records: what opens them is erased."""
        erased = [renewal.as_record(bundle.seals[place]) for place in (made.ORIGINAL, made.CHILD)]
        erased[1:] = [
            one.model_copy(update={"renewed": tuple(part.model_copy(update=changes) for part in one.renewed or ())})
            for one in erased[1:]
        ]
        parts = {"seals": (bundle.seals[made.COLLAGE],), "records": (*erased, *bundle.records)}
        return bundle.model_copy(update=parts)

    cases.add("made of what was erased since", DERIVED, made.collage, fell, listed(new))
    cases.add("of an erased one the opening is gone", NOT_CHECKED, made.collage, stands, listed(new, opening=None))
    cases.add("of an erased one the image is gone", NOT_CHECKED, made.collage, stands, listed(new, image=None))
    cases.add("of an erased one the opening is another", NOT_CHECKED, made.collage, stands, listed(new, opening=b"\5" * 32))
    bare = listed(made.bundle)
    records = renewed(world, bare, {0: made.collage, 1: None, 2: None}, state_block=27)
    cases.add("made of what was renewed as records", DERIVED, made.collage, made.trust(27, sha256=FAR), records)


def _signatures(cases: _Cases) -> None:
    """The device's key is on secp256k1, the gateway's and the authority's on P-256; both are enrolled at START."""
    made = family()
    for name, fallen, of_original, of_collage, step in (
        ("secp256k1 fell a second after the anchor", {"secp256k1": ANCHORED + 1}, IN_ORDER, DERIVED, None),
        ("secp256k1 fell in the anchor's second", {"secp256k1": ANCHORED}, NOT_CHECKED, NOT_CHECKED, None),
        ("P-256 fell a second after the anchor", {"p256": ANCHORED + 1}, IN_ORDER, DERIVED, None),
        ("P-256 fell in the anchor's second", {"p256": ANCHORED}, IN_ORDER, NOT_CHECKED, "role"),
        ("P-256 fell a second after the enrolment", {"p256": START + 1}, IN_ORDER, NOT_CHECKED, "role"),
        ("P-256 fell in the second of the enrolment", {"p256": START}, NOT_CHECKED, NOT_CHECKED, None),
    ):
        trail: Case = {"custody": [["stored", step]]} if of_original is IN_ORDER else {}
        cases.add(f"{name}: an original", of_original, made.original, made.trust(**fallen), made.bundle, **trail)
        cases.add(f"{name}: made of both", of_collage, made.collage, made.trust(**fallen), made.bundle)
    jane = make_subject()
    for curve, fallen, expect in (
        ("secp256k1", {"secp256k1": FAR}, NOT_CHECKED),
        ("secp256k1", {"p256": FAR}, NOT_CHECKED),
        ("p256", {"p256": FAR}, NOT_CHECKED),
        ("p256", {"secp256k1": FAR}, PENDING),
    ):
        world = World("p256" if curve == "p256" else "secp256k1")
        waiting = world.bundle([world.seal(jane)])
        name = f"not anchored, {curve}, and {next(iter(fallen))} falls"
        cases.add(name, expect, jane, trusting(world, **fallen), waiting)


def _not_of_this(cases: _Cases) -> None:
    jane, john = make_subject(), make_subject(2, SOPInstanceUID="9.9")
    world = World()
    old = world.anchored([world.seal(jane), world.seal(john)])
    new = renewed(world, old, {0: jane, 1: john})
    trust = trusting(world, 8, STATE_BLOCK)
    one, two = (seal.renewed or () for seal in new.seals)
    cases.add("renewed in one batch", IN_ORDER, jane, trust, new)
    cases.add("another seal's renewal", NOT_CHECKED, jane, trust, with_renewed(new, 0, *two))
    cases.add("another seal's renewal beside its own", NOT_CHECKED, jane, trust, with_renewed(new, 0, *one, *two))
    cases.add("its own renewal twice", IN_ORDER, jane, trust, with_renewed(new, 0, *one, *one))
    cases.add("a damaged renewal of another seal", IN_ORDER, jane, trust, with_renewed(new, 1, *one))
    waiting = new.model_copy(update={"seals": (new.seals[0].model_copy(update={"included": None}), new.seals[1])})
    cases.add("renewed, but not anchored", NOT_CHECKED, jane, trust, waiting)
    world = World()
    old = world.anchored([world.seal(jane)])
    looked = renewed(world, old, {0: jane}, beacons=(Beacon(3, world.hash_of(3)),))
    cases.add("renewed with beacons", NOT_CHECKED, jane, trusting(world, 8, STATE_BLOCK), looked)
    again = renewed(world, old, {0: jane}, state_block=24)
    later = again.model_copy(update={"states": (world.state(9), again.states[1])})
    cases.add("the anchor proven anew since", IN_ORDER, jane, trusting(world, 9, 24, sha256=FAR), later)
    world.seal(john)
    larger = world.anchored(list(old.seals), state_block=10)
    (part,) = larger.seals
    grown = again.model_copy(
        update={
            "seals": (part.model_copy(update={"renewed": again.seals[0].renewed}),),
            "anchors": larger.anchors,
            "states": (larger.states[0], again.states[1]),
        }
    )
    cases.add("in another anchor since", NOT_CHECKED, jane, trusting(world, 10, 24), grown)


def _blocks(cases: _Cases) -> None:
    world, jane = World(), make_subject()
    old = world.anchored([world.seal(jane)])
    new = renewed(world, old, {0: jane})
    asked = {"blocks": {str(STATE_BLOCK): "0x" + world.hash_of(STATE_BLOCK).hex()}}
    other = {"blocks": {str(STATE_BLOCK): "0x" + bytes(32).hex()}, "settled": STATE_BLOCK}
    for when, trust in (("stands", trusting(world, 8)), ("has fallen", trusting(world, 8, sha256=FAR))):
        unsettled = OUT_OF_REACH if when == "has fallen" else IN_ORDER
        cases.add(f"nobody vouches for the renewal's block, SHA-256 {when}", unsettled, jane, trust, new)
        settled, waiting = asked | {"settled": STATE_BLOCK}, asked | {"settled": STATE_BLOCK - 1}
        cases.add(f"the chain vouches for it, SHA-256 {when}", IN_ORDER, jane, trust, new, facts=settled)
        cases.add(f"it is not settled, SHA-256 {when}", unsettled, jane, trust, new, facts=waiting)
        cases.add(f"the chain has another block, SHA-256 {when}", OUT_OF_REACH, jane, trust, new, facts=other)
    late = trusting(world, 8, sha256=RENEWED)
    cases.add("too late, and nobody vouches for it", NOT_CHECKED, jane, late, new)
    early = renewed(world, old, {0: jane}, block=30, state_block=29)
    cases.add("a state that is older than the renewal", NOT_CHECKED, jane, trusting(world, 8, 29), early)


def _damaged(cases: _Cases) -> None:
    world, jane = World(), make_subject()
    new = renewed(world, world.anchored([world.seal(jane)]), {0: jane}, beside=2)
    trust, text = trusting(world, 8, STATE_BLOCK), evidence.write(new).decode()
    cases.add("the third of its batch", IN_ORDER, jane, trust, text)

    def changed(change: Callable[[Case, Case, Case], Any]) -> str:
        copied: Case = json.loads(text)
        change(copied["seals"][0], copied["seals"][0]["renewed"][0], copied["renewals"][0])
        return json.dumps(copied)

    def flipped(data: str) -> str:
        octets = from_b64(data)
        return to_b64(octets[:-1] + bytes([octets[-1] ^ 1]))

    (whole,) = new.seals[0].renewed or ()
    damages: dict[str, Callable[[Case, Case, Case], Any]] = {
        "the log": lambda _, __, batch: batch.update(log_id=flipped(batch["log_id"])),
        "the path": lambda _, one, __: one.update(path=flipped(one["path"])),
        "the image": lambda _, one, __: one.update(image=flipped(one["image"])),
        "no image": lambda _, one, __: one.pop("image"),
        "the index": lambda _, one, __: one.update(index=1),
        "an index outside of the batch": lambda _, one, __: one.update(index=3),
        "the old size": lambda _, __, batch: batch.update(old_size=OLD_SIZE - 1),
        "the new size": lambda _, __, batch: batch.update(new_size=OLD_SIZE + 4),
        "a batch of none": lambda _, __, batch: batch.update(old_size=OLD_SIZE + 3),
        "a batch of less than none": lambda _, __, batch: batch.update(old_size=OLD_SIZE + 4),
        "the block": lambda _, __, batch: batch.update(block_number=BLOCK - 1),
        "the block's time": lambda _, __, batch: batch.update(block_time=RENEWED - 1),
        "the state of the anchor": lambda _, __, batch: batch.update(state=0),
        "a state outside": lambda _, __, batch: batch.update(state=2),
        "a renewal outside": lambda _, one, __: one.update(renewal=1),
        "a path too short": lambda _, one, __: one.update(path=""),
        "a path too long": lambda _, one, __: one.update(path=to_b64(whole.path * 2)),
        "half a node": lambda _, one, __: one.update(path=to_b64(whole.path[:-16])),
        "half an image": lambda _, one, __: one.update(image=one["image"][:-22]),
        "another hash": lambda _, __, batch: batch.update(hash="sha256"),
        "a member too few": lambda _, one, __: one.pop("path"),
        "a member too many": lambda _, __, batch: batch.update(beacons=[]),
        "a renewal that is null": lambda seal, _, __: seal.update(renewed=[None]),
        "the decoder": lambda seal, _, __: seal.update(decoder="another"),
    }
    for name, damage in damages.items():
        cases.add(f"damaged renewal: {name}", NOT_CHECKED, jane, trust, changed(damage))
    none: dict[str, Callable[[Case, Case, Case], Any]] = {
        "an opening, of which nothing is made": lambda _, one, __: one.update(opening=to_b64(bytes(32))),
        "renewals that are null": lambda seal, _, __: seal.update(renewed=None),
        "a list of none": lambda seal, _, __: seal.update(renewed=[]),
        "a decoder without a name": lambda seal, _, __: seal.update(decoder=""),
    }
    for name, change in none.items():
        cases.add(f"no damage: {name}", IN_ORDER, jane, trust, changed(change))
