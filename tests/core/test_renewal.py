"""Evidence and SHA-256's fall: what a renewal saves, what it does not, and what it must not hide."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.core import contracts, evidence, merkle, renewal, trust
from ledger.core.custody import Statement
from ledger.core.errors import EvidenceInvalid
from ledger.core.evidence import Bundle, Entry, RecordEntry, Renewal, Renewed
from ledger.core.pixels import PixelDigest
from ledger.core.proof import Proofs
from ledger.core.records import ManifestRecord
from ledger.core.search import Evidence, Subject
from ledger.core.standing import stand
from ledger.core.trust import Facts, Fallen
from ledger.core.verdict import Token, Verdict
from ledger.core.verify import verify
from tests.core.conftest import make_subject
from tests.core.test_attacks import at, changed, flips, leaves_of, places_of
from tests.simulators.ledger import ANCHOR_LOG, START, World
from tests.simulators.site import DEIDENTIFY, NOBODY, Site, made_of, shown, signed_again

LOG = b"\x77" * 32
BLOCK, STATE_BLOCK = 20, 23


def renewed(
    world: World,
    bundle: Bundle,
    images: dict[int, Subject | None],
    *,
    block: int = BLOCK,
    state_block: int = STATE_BLOCK,
    log: bytes = LOG,
) -> Bundle:
    """A bundle whose entries at these places are renewed in `block`, with their images where they are at hand."""
    proofs = Proofs(bundle, world.trust(8), Facts())
    entries: list[Entry] = list(bundle.entries)
    said = {place: None if image is None else renewal.image_hashes(entries[place], image)[0] for place, image in images.items()}
    leaves = [
        renewal.leaf_hash(
            renewal.evidence_hash(entries[place], *renewal.around(proofs, entries[place])),
            renewal.opening_hash(entries[place]) if place < len(bundle.seals) else None,
            image,
        )
        for place, image in said.items()
    ]
    root, old = merkle.root_of(leaves, "blake3"), 3
    commitment = contracts.anchor_commitment(root, old, block, world.time_of(block), ())
    world.storage[ANCHOR_LOG][contracts.anchor_slot(log, old + len(leaves))] = int.from_bytes(commitment, "big")
    part = Renewal(
        hash="blake3",
        log_id=log,
        old_size=old,
        new_size=old + len(leaves),
        block_number=block,
        block_time=world.time_of(block),
        state=len(bundle.states),
    )
    for index, (place, image) in enumerate(said.items()):
        path = b"".join(merkle.inclusion_path(leaves, index, "blake3"))
        one = Renewed(renewal=len(bundle.renewals), index=index, path=path, image=image)
        entries[place] = entries[place].model_copy(update={"renewed": (*(entries[place].renewed or ()), one)})
    count = len(bundle.seals)
    return bundle.model_copy(
        update={
            "seals": tuple(entries[:count]),
            "records": tuple(entries[count:]),
            "renewals": (*bundle.renewals, part),
            "states": (*bundle.states, world.state(state_block)),
        }
    )


def fell(*algorithms: str, since: int) -> dict[str, Any]:
    return {"fallen": tuple(Fallen(algorithm=one, since=since) for one in algorithms)}


class Case:
    """One sealed image, renewed in block 20."""

    def __init__(self) -> None:
        self.world = Site()
        self.image = self.world.original
        self.old = self.world.anchored([self.world.seal(self.image)])
        self.bundle = renewed(self.world, self.old, {0: self.image})
        self.later = fell("sha256", since=self.world.time_of(BLOCK) + 1)

    def verdict(
        self, bundle: Bundle, image: Subject | None = None, *, blocks: tuple[int, ...] = (8, STATE_BLOCK), **changes: Any
    ) -> Verdict:
        return verify(image or self.image, Evidence([bundle], self.world.trust(*blocks, **changes)))


@pytest.fixture
def case() -> Case:
    return Case()


# ---- SHA-256 falls ----


def test_evidence_that_was_renewed_before_outlives_sha256_and_any_other_does_not(case):
    assert case.verdict(case.old).token is case.verdict(case.bundle).token is Token.AUTHENTIC
    assert case.verdict(case.bundle, **case.later).token is Token.AUTHENTIC
    verdict = case.verdict(case.old, **case.later)
    assert (verdict.token, verdict.exit_code) == (Token.NOT_CHECKED, 7)
    assert "scanseal renew" in verdict.reasons[0]


def test_a_renewal_in_the_second_of_the_fall_or_after_it_is_too_late(case):
    for since in (case.world.time_of(BLOCK), START):
        verdict = case.verdict(case.bundle, **fell("sha256", since=since))
        assert (verdict.token, verdict.exit_code) == (Token.NOT_CHECKED, 7)
        assert "too late" in verdict.reasons[0]


def test_the_earliest_date_of_several_counts(case):
    since = case.world.time_of(BLOCK)
    both = {"fallen": (*case.later["fallen"], Fallen(algorithm="sha256", since=since))}
    assert case.verdict(case.bundle, **both).token is Token.NOT_CHECKED


def test_evidence_may_be_renewed_more_than_once_and_one_in_time_is_enough(case):
    twice = renewed(case.world, case.bundle, {0: case.image}, block=30, state_block=33, log=b"\x78" * 32)
    assert len(twice.renewals) == 2
    assert case.verdict(twice, blocks=(8, 23, 33), **case.later).token is Token.AUTHENTIC
    between = fell("sha256", since=case.world.time_of(25))
    assert case.verdict(twice, blocks=(8, 23, 33), **between).token is Token.AUTHENTIC
    # The block of the later one is nobody's business then.
    assert case.verdict(twice, blocks=(8, 23), **between).token is Token.AUTHENTIC


def test_what_a_broken_hash_would_let_through_is_caught_by_the_renewal(case):
    """Other pixels with the very SHA-256 digest that was sealed: nobody can make them today."""
    other = make_subject(9).digests["px1-blake3"]
    forged = Subject(case.image.attributes, dict(case.image.digests) | {"px1-blake3": other})
    assert case.verdict(case.bundle, forged).token is Token.AUTHENTIC
    verdict = case.verdict(case.bundle, forged, **case.later)
    assert (verdict.token, verdict.exit_code) == (Token.NOT_CHECKED, 7)
    assert "not of this image" in verdict.reasons[0]


def test_a_seal_that_was_renewed_without_its_image_says_nothing_of_it(case):
    bundle = renewed(case.world, case.old, {0: None})
    assert case.verdict(bundle).token is Token.AUTHENTIC
    assert case.verdict(bundle, **case.later).token is Token.NOT_CHECKED


def test_a_renewal_never_hides_what_is_wrong_with_an_image(case):
    altered = Subject(case.image.attributes, make_subject(2).digests)
    swapped = Subject(dict(case.image.attributes) | {"PatientID": "4712"}, case.image.digests)
    for changes in ({}, case.later):
        assert case.verdict(case.bundle, altered, **changes).token is Token.ALTERED
        verdict = case.verdict(case.bundle, swapped, **changes)
        assert (verdict.token, verdict.differing) == (Token.MISMATCH, ("PatientID",))
        notice = trust.KeyNotice(key=case.world.signer.key, compromised_since=START)
        assert case.verdict(case.bundle, keys=(notice,), **changes).token is Token.REVOKED


def test_a_pending_seal_has_nothing_that_could_be_renewed(case):
    pending = case.world.bundle([case.world.seal(case.image, in_log=False)])
    assert case.verdict(pending).token is Token.PENDING
    assert case.verdict(pending, **case.later).token is Token.NOT_CHECKED
    with pytest.raises(EvidenceInvalid, match="not on chain"):
        renewed(case.world, pending, {0: case.image})


# ---- who has to be believed ----


def test_renewing_takes_nothing_from_those_who_have_an_older_trust_file(case):
    assert case.verdict(case.bundle, blocks=(8,)).token is Token.AUTHENTIC


def test_when_it_counts_somebody_has_to_vouch_for_the_renewals_block(case):
    verdict = case.verdict(case.bundle, blocks=(8,), **case.later)
    assert (verdict.token, verdict.exit_code) == (Token.NOT_CHECKED, 6)
    chain = Facts(blocks={STATE_BLOCK: case.world.hash_of(STATE_BLOCK)}, settled=STATE_BLOCK)
    asked = [(chain, Token.AUTHENTIC, 0), (replace(chain, settled=STATE_BLOCK - 1), Token.NOT_CHECKED, 6)]
    for facts, token, code in asked:
        verdict = verify(case.image, Evidence([case.bundle], case.world.trust(8, **case.later), facts))
        assert (verdict.token, verdict.exit_code) == (token, code)


def test_a_renewal_in_a_block_that_is_not_on_the_chain_is_never_passed_over(case):
    for changes in ({}, case.later):
        blocks = (*case.world.trust(8).blocks, trust.Block(number=STATE_BLOCK, hash=b"\x01" * 32))
        verdict = case.verdict(case.bundle, blocks=(), **changes)
        assert verdict.token is Token.NOT_CHECKED
        verdict = verify(case.image, Evidence([case.bundle], case.world.trust(**(changes | {"blocks": blocks}))))
        assert (verdict.token, verdict.exit_code) == (Token.NOT_CHECKED, 6)


def test_it_does_not_matter_in_whose_log_or_by_whom_it_was_renewed(case):
    bundle = renewed(case.world, case.old, {0: case.image}, log=b"\x79" * 32)
    assert case.verdict(bundle, **case.later).token is Token.AUTHENTIC


def test_a_state_older_than_the_renewal_that_it_shows_is_damage(case):
    bundle = renewed(case.world, case.old, {0: case.image}, block=30, state_block=29)
    assert case.verdict(bundle, blocks=(8, 29)).token is Token.NOT_CHECKED


# ---- of what a renewal is ----


def test_the_renewal_of_another_seal_is_none(case):
    world = case.world
    other = make_subject(3, SOPInstanceUID="1.5")
    old = world.anchored([case.old.seals[0].model_copy(update={"included": None}), world.seal(other)])
    bundle = renewed(world, old, {0: case.image, 1: other})
    assert case.verdict(bundle, **case.later).token is case.verdict(bundle, other, **case.later).token is Token.AUTHENTIC
    first, second = bundle.seals
    swapped = (first.model_copy(update={"renewed": second.renewed}), second.model_copy(update={"renewed": first.renewed}))
    bundle = bundle.model_copy(update={"seals": swapped})
    for changes in ({}, case.later):
        assert case.verdict(bundle, **changes).token is case.verdict(bundle, other, **changes).token is Token.NOT_CHECKED


def hashed(case: Case, certificate: bytes = b"c", checkpoint: str = "n", **changes: Any) -> bytes:
    return renewal.evidence_hash(case.old.seals[0].model_copy(update=changes), certificate, checkpoint)


def test_everything_that_rests_on_sha256_is_in_the_hash(case):
    seal = case.old.seals[0]
    assert seal.included is not None
    different = [
        hashed(case),
        hashed(case, certificate=b"d"),
        hashed(case, checkpoint="m"),
        hashed(case, signature=bytes(64)),
        hashed(case, record=seal.record.model_copy(update={"counter": 5})),
        hashed(case, leaves=seal.leaves[::-1]),
        hashed(case, included=seal.included.model_copy(update={"index": 5})),
        hashed(case, included=seal.included.model_copy(update={"path": bytes(32)})),
        # The same bytes, cut elsewhere.
        hashed(case, certificate=b"cn", checkpoint=""),
    ]
    assert len(set(different)) == len(different)
    opening = [{}, {"image_key": bytes(16)}, {"kept": b""}, {"kept": bytes(16)}, {"decoder": "x"}, {"kept": b"x"}]
    hashes = [renewal.opening_hash(seal.model_copy(update=one)) for one in opening]
    # Whether there are kept salts is the statement's to say.
    assert hashes.pop(2) == hashes[0]
    assert len(set(hashes)) == len(hashes)
    # Which anchor of this bundle it is, hints, tiles and renewals are not part of it: they change from bundle to bundle.
    same = {"included": seal.included.model_copy(update={"anchor": 7}), "find": bytes(16), "study": 3, "tiles": None}
    assert hashed(case, **same) == hashed(case)


def test_the_image_hash_tells_values_from_absence_and_is_keyed(case):
    seal, attributes = case.old.seals[0], dict(case.image.attributes)
    digest = str(case.image.digests["px1-blake3"])
    different = [
        renewal.image_hash(seal, digest, attributes),
        renewal.image_hash(seal.model_copy(update={"image_key": bytes(16)}), digest, attributes),
        renewal.image_hash(seal, str(case.image.digests["px1-sha256"]), attributes),
        renewal.image_hash(seal, digest, attributes | {"StationName": ""}),
        renewal.image_hash(seal, digest, attributes | {"StationName": "A"}),
        renewal.image_hash(seal, digest, attributes | {"DeviceSerialNumber": "A"}),
    ]
    assert len(set(different)) == len(different)
    assert renewal.image_hash(seal, digest, attributes | {"NotBound": "A"}) == different[0]


def test_a_copy_decoded_from_a_lossy_original_is_renewed_for_itself(case):
    world, image = case.world, case.image
    stream = {
        f"cs1-{name}": PixelDigest(f"cs1-{name}", bytes([number]) * 32) for number, name in enumerate(("sha256", "blake3"))
    }
    original = Subject(image.attributes, stream)
    seal = world.seal(original, "cs1-sha256", decoder="d 1", decoded=image.digests["px1-sha256"])
    old = world.anchored([seal])
    bundle = renewed(world, old, {0: original})
    assert case.verdict(bundle).token is case.verdict(bundle, original).token is Token.AUTHENTIC
    assert case.verdict(bundle, original, **case.later).token is Token.AUTHENTIC
    assert case.verdict(bundle, **case.later).token is Token.NOT_CHECKED
    both = renewed(world, bundle, {0: image}, log=b"\x78" * 32, state_block=24)
    for one in (original, image):
        assert case.verdict(both, one, blocks=(8, 23, 24), **case.later).token is Token.AUTHENTIC


# ---- lineage, trail, manifests ----


def test_every_record_that_an_image_was_made_from_is_renewed_for_itself(case):
    site = case.world
    parent = site.seal(make_subject(4, SOPInstanceUID="1.4"))
    child = made_of(make_subject(4), **NOBODY)
    made = site.derive(child, parent, DEIDENTIFY, signer=site.gateway)
    old = site.anchored([made], records=shown(parent))
    assert case.verdict(renewed(site, old, {0: child, 1: None}), child, **case.later).token is Token.DERIVED
    assert case.verdict(renewed(site, old, {0: child}), child).token is Token.DERIVED
    verdict = case.verdict(renewed(site, old, {0: child}), child, **case.later)
    assert (verdict.token, verdict.exit_code) == (Token.NOT_CHECKED, 7)


def test_a_parent_whose_image_was_erased_keeps_its_renewal(case):
    site = case.world
    original = make_subject(4, SOPInstanceUID="1.4")
    parent = site.seal(original)
    child = made_of(original, **NOBODY)
    made = site.derive(child, parent, DEIDENTIFY, signer=site.gateway)
    whole = renewed(site, site.anchored([made, parent]), {0: child, 1: original})
    assert case.verdict(whole, child, **case.later).token is Token.DERIVED
    erased = whole.model_copy(update={"seals": whole.seals[:1], "records": (renewal.as_record(whole.seals[1]),)})
    assert whole.seals[1].image_key not in evidence.write(erased)
    assert case.verdict(erased, child, **case.later).token is Token.DERIVED
    (one,) = erased.records[0].renewed or ()
    for member in ("opening", "image"):
        records = (erased.records[0].model_copy(update={"renewed": (one.model_copy(update={member: None}),)}),)
        assert case.verdict(erased.model_copy(update={"records": records}), child).token is Token.NOT_CHECKED


def test_a_step_of_the_trail_that_was_not_renewed_is_a_finding_and_leaves_the_verdict(case):
    site = case.world
    seal = site.seal(make_subject(4, SOPInstanceUID="1.4"))
    image = make_subject(4, SOPInstanceUID="1.4")
    old = site.anchored([seal], records=[site.step(seal, Statement("stored"), signer=site.cro)])
    for places, finding in (({0: image, 1: None}, None), ({0: image}, "role")):
        verdict = case.verdict(renewed(site, old, places), image, **case.later)
        assert verdict.token is Token.AUTHENTIC
        assert [step.finding for step in verdict.custody] == [None, finding]


def test_a_manifests_list_rests_on_sha256_alone_so_renewing_its_record_does_not_save_it(case):
    site = case.world
    listed = signed_again(site, manifest_record(site), site.cro)
    old = site.anchored(list(case.old.seals), records=[RecordEntry(**listed)])
    bundle = renewed(site, old, {0: case.image, 1: None})
    for changes in ({}, case.later):
        judging = Evidence([bundle], site.trust(8, STATE_BLOCK, **changes))
        assert stand(judging, 0, bundle.seals[0]).refused is None
        if not changes:
            assert stand(judging, 0, bundle.records[0]).refused is None
            continue
        with pytest.raises(EvidenceInvalid, match="list of a manifest"):
            stand(judging, 0, bundle.records[0])


def manifest_record(site: Site) -> ManifestRecord:
    beacon = (site.beacon_block, site.hash_of(site.beacon_block))
    return ManifestRecord(bytes(32), "manifest-1", site.cro.key, 0, bytes(32), site.time_of(4), *beacon, "visit", 1)


# ---- signatures fall ----


@pytest.mark.parametrize("curve", ["secp256k1", "p256"])
def test_a_signature_that_was_on_chain_before_its_algorithm_fell_stands_without_renewal(curve):
    world = World(curve)
    image = make_subject()
    bundle = world.anchored([world.seal(image)])
    other = {"secp256k1": "p256", "p256": "secp256k1"}[curve]
    anchored = world.time_of(5)
    for algorithm, since, token in (
        (curve, anchored + 1, Token.AUTHENTIC),
        (curve, anchored, Token.NOT_CHECKED),
        (curve, START, Token.NOT_CHECKED),
        (other, START + 1, Token.AUTHENTIC),
    ):
        verdict = verify(image, Evidence([bundle], world.trust(8, **fell(algorithm, since=since))))
        assert verdict.token is token, (algorithm, since)
    pending = world.bundle([world.seal(make_subject(2, SOPInstanceUID="1.8"), in_log=False)])
    verdict = verify(make_subject(2, SOPInstanceUID="1.8"), Evidence([pending], world.trust(8, **fell(curve, since=2**40))))
    assert (verdict.token, verdict.exit_code) == (Token.NOT_CHECKED, 7)


def test_a_certificate_counts_where_it_was_enrolled_before_its_authoritys_algorithm_fell():
    world = World("secp256k1")  # the authority is on P-256
    image = make_subject()
    bundle = world.anchored([world.seal(image)])
    for since, token in ((START + 1, Token.AUTHENTIC), (START, Token.NOT_CHECKED)):
        verdict = verify(image, Evidence([bundle], world.trust(8, **fell("p256", since=since))))
        assert verdict.token is token, since


# ---- damage ----

DAMAGED = Case()
DAMAGED.old = DAMAGED.world.anchored([DAMAGED.world.seal(make_subject(6, SOPInstanceUID="1.6")), *DAMAGED.old.seals])
DAMAGED.bundle = renewed(DAMAGED.world, DAMAGED.old, {0: None, 1: DAMAGED.image})
WHOLE = json.loads(evidence.write(DAMAGED.bundle))
PLACES = [
    path
    for path in places_of(WHOLE)
    if path[:3] == ("seals", 1, "renewed") or path[0] == "renewals" or (path[0] == "states" and path[1] == 1)
]


@pytest.mark.parametrize("path", PLACES, ids=str)
@pytest.mark.parametrize("falls", [False, True])
def test_no_flipped_bit_of_a_renewal_is_overlooked(path, falls):
    changes = DAMAGED.later if falls else {}
    tried = [(leaf, value) for leaf in leaves_of(at(WHOLE, path), path) for value in flips(at(WHOLE, leaf), 24)]
    assert tried
    for leaf, value in tried:
        try:
            bundle = evidence.parse(json.dumps(changed(WHOLE, leaf, value)).encode())
        except EvidenceInvalid:
            continue
        verdict = DAMAGED.verdict(bundle, **changes)
        if path[:1] == ("states",) and path[2] == "nodes" and verdict.token is Token.AUTHENTIC:
            continue  # a node that no proof needs
        assert verdict.token is Token.NOT_CHECKED, (leaf, value)


def test_a_place_outside_of_the_bundle_is_named():
    for path, named in (
        (("seals", 0, "renewed", 0, "renewal"), "seals.0.renewed"),
        (("renewals", 0, "state"), "renewals.0.state"),
    ):
        with pytest.raises(EvidenceInvalid, match=named):
            evidence.parse(json.dumps(changed(WHOLE, path, 9)).encode())


def test_a_bundle_without_its_renewals_is_what_it_was(case):
    assert evidence.write(renewal.without_renewals(case.bundle)) == evidence.write(case.old)
    assert evidence.parse(evidence.write(case.bundle)) == case.bundle


@given(st.integers(0, 70), st.sampled_from(["sha256", "blake3"]))
def test_all_paths_at_once_are_the_paths_one_by_one(count, hash_name):
    leaves = [bytes([number]) * 32 for number in range(count)]
    assert merkle.inclusion_paths(leaves, hash_name) == [merkle.inclusion_path(leaves, at, hash_name) for at in range(count)]
