"""Where an image comes from: each verdict by lineage, and receipts that are false."""

from dataclasses import replace

import numpy as np
import pytest

from ledger.core import content
from ledger.core.custody import OPERATIONS, Statement
from ledger.core.evidence import Entry, RecordEntry, Seal
from ledger.core.records import CustodyRecord, ManifestRecord, Role
from ledger.core.search import Subject
from ledger.core.trust import Facts, KeyNotice
from ledger.core.verdict import Token, Verdict
from ledger.core.verify import Evidence, verify
from tests.core.conftest import make_subject, subject_of
from tests.simulators.ledger import START
from tests.simulators.site import DEIDENTIFY, NOBODY, Site, derived, made_of, shown, signed_again, verdict_of


@pytest.fixture
def site() -> Site:
    return Site()


# ---- in order ----


@pytest.mark.parametrize("curve", ["secp256k1", "p256"])
def test_a_deidentified_image_is_derived_and_tells_the_first_device_and_bracket(curve):
    site = Site(curve)
    parent = site.seal(site.original)
    child = made_of(site.original, **NOBODY)
    verdict = site.verdict(child, [site.derive(child, parent, DEIDENTIFY, signer=site.gateway)], parent)
    assert (verdict.token, verdict.exit_code) == (Token.DERIVED, 0)
    assert verdict.device == site.device.name
    assert verdict.sealed_between == (site.time_of(3), site.time_of(5))
    assert [step.action for step in verdict.custody] == ["acquired", "de-identified"]
    assert "the pixels were kept" in verdict.reasons[0]
    assert verdict.checks["completeness"].status == "ok"


def test_a_chain_of_three_derivations_is_derived(site):
    first = site.seal(site.original)
    subjects, entries = [site.original], [first]
    for number, (statement, changes) in enumerate(
        [
            (derived("correction", "SOPInstanceUID", "ViewPosition"), {"ViewPosition": "PA"}),
            (derived("crop", "SOPInstanceUID", "PixelData", "ImagePositionPatient"), {"ImagePositionPatient": "1\\2\\3"}),
            (DEIDENTIFY, NOBODY),
        ]
    ):
        child = made_of(subjects[-1], 7 if number == 1 else None, f"1.{number}", **changes)
        entries.append(site.derive(child, entries[-1], statement, signer=site.gateway))
        subjects.append(child)
    verdict = site.verdict(subjects[-1], [entries[-1]], *entries[:-1])
    assert verdict.token is Token.DERIVED
    assert [step.operation for step in verdict.custody] == ["acquired", "correction", "crop", "de-identified"]
    assert [reason.partition(" by ")[0] for reason in verdict.reasons] == ["correction", "crop", "de-identified"]
    # The pixels of the end are what somebody cropped, and a verdict says so.
    assert verdict.checks["integrity"].status == "not_checked"


@pytest.mark.parametrize("action", ["received", "stored", "exported", "transferred", "read", "transcoded"])
def test_steps_that_leave_the_image_as_it_is_leave_it_authentic(site, action):
    roles = {"read": Role.READ, "transcoded": Role.TRANSFORM}.get(action, Role.HOLD)
    signer, _ = site.newcomer(roles, "X")
    members = {"transferred": {"to": "A" * 43}, "transcoded": {"transfer_syntax": "1.2.3"}}.get(action, {})
    parent = site.seal(site.original)
    step = site.derive(site.original, parent, Statement(action, members), signer=signer)
    verdict = site.verdict(site.original, [step], parent)
    assert verdict.token is Token.AUTHENTIC
    assert [one.action for one in verdict.custody] == ["acquired", action]


def test_a_step_between_parent_and_child_is_part_of_the_lineage(site):
    parent = site.seal(site.original)
    stored = site.step(parent, Statement("stored"), signer=site.cro)
    child = made_of(site.original, **NOBODY)
    ids = (stored.record.value.id(site.domain),)
    made = site.derive(child, parent, DEIDENTIFY, signer=site.gateway, parents=ids)
    verdict = site.verdict(child, [made], parent, stored)
    assert verdict.token is Token.DERIVED
    assert [one.action for one in verdict.custody] == ["acquired", "stored", "de-identified"]


def test_a_result_of_several_parents_keeps_the_first_ones_patient(site):
    others = [site.seal(made_of(site.original, seed, f"1.{seed}", PatientName="Other")) for seed in (4, 5)]
    first = site.seal(site.original)
    child = made_of(site.original, 6, Modality="OT")
    statement = derived("ai-result", "SOPInstanceUID", "PixelData", "Modality")
    ids = tuple(one.record.value.id(site.domain) for one in (first, *others))
    made = site.derive(child, first, statement, signer=site.gateway, parents=ids)
    verdict = site.verdict(child, [made], first, *others)
    assert verdict.token is Token.DERIVED
    assert len(verdict.custody) == 4
    assert site.verdict(
        replace(child, attributes={**child.attributes, "PatientName": "Other"}), [made], first, *others
    ).token is (Token.MISMATCH)


def test_a_child_is_compared_with_what_was_sealed_of_it(site):
    parent = site.seal(site.original)
    child = made_of(site.original, **NOBODY)
    made = site.derive(child, parent, DEIDENTIFY, signer=site.gateway)
    bundle = site.anchored([made], records=shown(parent))
    other_pixels = replace(child, digests=make_subject(5).digests)
    assert verdict_of(other_pixels, bundle, site).token is Token.ALTERED
    named = verdict_of(
        replace(child, attributes={**child.attributes, "PatientID": "S02", "PixelSpacing": "1\\1"}), bundle, site
    )
    assert (named.token, named.differing) == (Token.MISMATCH, ("PatientID", "PixelSpacing"))
    # The original has the pixels, and is not what this evidence is about.
    again = verdict_of(site.original, bundle, site)
    assert (again.token, again.differing) == (Token.MISMATCH, ("PatientName", "PatientID", "SOPInstanceUID"))


# ---- false receipts ----


def false(site: Site, child: Subject, statement: Statement, **more: object) -> Verdict:
    """The verdict on a child that is what its seal says, of a receipt that is not true of its parent."""
    parent = site.seal(site.original)
    return site.verdict(child, [site.derive(child, parent, statement, signer=site.gateway, **more)], parent)


def frame(**edits: int) -> np.ndarray:
    values = np.random.default_rng(1).integers(0, 4096, (130, 70), dtype=np.uint16)
    values[100, 65] ^= edits.get("pixel", 0)
    return values[: edits.get("rows", 130)]


@pytest.mark.parametrize(
    ("changes", "token", "named"),
    [
        ({"PixelSpacing": "1\\1"}, Token.MISMATCH, "PixelSpacing"),
        ({"Laterality": "L"}, Token.MISMATCH, "Laterality"),
        ({"ImageLaterality": "R"}, Token.MISMATCH, "ImageLaterality"),
        ({"PatientSex": "F"}, Token.MISMATCH, "PatientSex"),
        ({"RescaleIntercept": None}, Token.MISMATCH, "RescaleIntercept"),
        ({"StudyDate": None}, Token.MISMATCH, "StudyDate"),
        ({"ImageOrientationPatient": "1\\0\\0\\0\\-1\\0"}, Token.MISMATCH, "ImageOrientationPatient"),
    ],
)
def test_a_kept_attribute_that_is_another_is_named(site, changes, token, named):
    verdict = false(site, made_of(site.original, **NOBODY, **changes), DEIDENTIFY)
    assert (verdict.token, verdict.differing) == (token, (named,))
    assert "receipt" in verdict.reasons[0]
    assert verdict.checks["integrity"].status == "failed"


@pytest.mark.parametrize("edit", [{"pixel": 1}, {"rows": 129}], ids=["a changed pixel", "a row less"])
def test_kept_pixels_that_are_others_are_altered(site, edit):
    edited = subject_of(frame(**edit), **{**NOBODY, "SOPInstanceUID": "1.9"})
    verdict = false(site, edited, DEIDENTIFY)
    assert verdict.token is Token.ALTERED
    assert "PixelData" in verdict.reasons[0]


def test_a_dropped_frame_is_altered(site):
    from ledger.core import pixels

    frames = [frame(), frame(pixel=1)]
    header = pixels.PixelHeader(0, 2, 2, 1, 130, 70, 2)
    both = {"px1-sha256": pixels.px1(header, frames, "sha256")}
    one = {"px1-sha256": pixels.px1(replace(header, frames=1), frames[:1], "sha256")}
    site.original = replace(site.original, digests=both)
    child = made_of(replace(site.original, digests=one), **NOBODY)
    assert false(site, child, DEIDENTIFY).token is Token.ALTERED


FORBIDDEN = [
    (DEIDENTIFY.members | {"changed": ["PatientName", "PatientID", "SOPInstanceUID", "PixelSpacing"]}, "PixelSpacing"),
    (DEIDENTIFY.members | {"changed": ["PixelData", "PatientName", "PatientID", "SOPInstanceUID"]}, "PixelData"),
    (DEIDENTIFY.members | {"changed": ["DecodedPixels", "PatientName", "PatientID", "SOPInstanceUID"]}, "DecodedPixels"),
    (DEIDENTIFY.members | {"options": ["retain-uids"]}, "SOPInstanceUID"),
    (derived("burn-in", "SOPInstanceUID", "PatientName", "PatientID").members, "PatientName"),
    (derived("secondary-capture", "SOPInstanceUID", "PatientName", "PatientID").members, "PatientName"),
    (derived("ai-result", "SOPInstanceUID", "PatientName", "PatientID").members, "PatientID"),
    (derived("correction", "SOPInstanceUID", "PatientName", "PatientID", "PixelData").members, "PixelData"),
    (derived("window", "SOPInstanceUID", "PatientName", "PatientID").members, "PatientName"),
    (derived("crop", "SOPInstanceUID", "PixelSpacing", "PatientName", "PatientID").members, "PixelSpacing"),
]


@pytest.mark.parametrize("has_changed", [True, False], ids=["changed", "with the parent's value"])
@pytest.mark.parametrize(("members", "named"), FORBIDDEN, ids=lambda value: value if isinstance(value, str) else None)
def test_what_an_action_may_not_change_makes_the_receipt_false_even_where_it_says_so(site, members, named, has_changed):
    statement = Statement("de-identified" if "profile" in members else "derived", members)
    values = {"PixelSpacing": {"PixelSpacing": "1\\1"}, "PatientName": NOBODY, "PatientID": NOBODY}.get(named, {})
    pixels = 8 if named == "PixelData" and has_changed else None
    verdict = false(site, made_of(site.original, pixels, **(values if has_changed else {})), statement)
    assert verdict.token is (Token.ALTERED if named in ("PixelData", "DecodedPixels") else Token.MISMATCH)
    assert any(named in reason for reason in verdict.reasons)


def test_every_false_item_is_named_the_pixels_too(site):
    members = DEIDENTIFY.members | {"changed": [*DEIDENTIFY.changed, "PixelSpacing"]}
    child = made_of(site.original, 9, Laterality="L", **NOBODY)
    verdict = false(site, child, Statement("de-identified", members))
    assert verdict.token is Token.ALTERED
    assert verdict.differing == ("Laterality", "PixelSpacing")
    assert [reason.partition(" ")[0] for reason in verdict.reasons] == ["PixelData", "Laterality", "PixelSpacing"]


@pytest.mark.parametrize("action", ["stored", "read", "transcoded"])
def test_an_action_that_leaves_the_image_as_it_is_proves_no_other_image(site, action):
    signer, _ = site.newcomer(Role.HOLD | Role.READ | Role.TRANSFORM, "X")
    statement = Statement(action, {"transfer_syntax": "1.2"} if action == "transcoded" else {})
    parent = site.seal(site.original)
    for child, token in ((made_of(site.original, 3, "1.2.3.1.1"), Token.ALTERED), (made_of(site.original), Token.MISMATCH)):
        assert site.verdict(child, [site.derive(child, parent, statement, signer=signer)], parent).token is token


def test_a_swapped_parent_makes_the_receipt_false(site):
    other = site.seal(made_of(site.original, 4, "1.4", PatientID="0815"))
    parent = site.seal(site.original)
    child = made_of(site.original, **NOBODY)
    made = site.derive(child, parent, DEIDENTIFY, signer=site.gateway, parents=(other.record.value.id(site.domain),))
    verdict = site.verdict(child, [made], parent, other)
    assert verdict.token is Token.ALTERED


def test_the_same_patients_other_image_is_no_parent_either(site):
    """All attributes alike: the salts are not."""
    sibling = site.seal(made_of(site.original, 4, "1.4"))
    parent = site.seal(site.original)
    child = made_of(site.original, **NOBODY)
    made = site.derive(child, parent, DEIDENTIFY, signer=site.gateway, parents=(sibling.record.value.id(site.domain),))
    assert site.verdict(child, [made], parent, sibling).token is Token.ALTERED


@pytest.mark.parametrize("what", ["record", "record and salts", "record, salts and leaves"])
def test_a_receipt_of_a_sibling_is_no_receipt(site, what):
    parents = [site.seal(site.original), site.seal(made_of(site.original, 4, "1.4"))]
    children = [made_of(site.original, **NOBODY), made_of(site.original, 4, "1.8", **NOBODY)]
    mine, theirs = (
        site.derive(child, parent, DEIDENTIFY, signer=site.gateway) for child, parent in zip(children, parents, strict=True)
    )
    update = {"record": theirs.record, "signature": theirs.signature}
    update |= {"image_key": theirs.image_key, "kept": theirs.kept} if "salts" in what else {}
    update |= {"leaves": theirs.leaves} if "leaves" in what else {}
    replayed = mine.model_copy(update=update)
    assert site.verdict(children[0], [replayed], *parents).token is Token.NOT_CHECKED


def test_a_false_receipt_further_up_is_told_of_the_child(site):
    parent = site.seal(site.original)
    middle = made_of(site.original, uid="1.5", Laterality="L")
    false_one = site.derive(middle, parent, derived("correction", "SOPInstanceUID"), signer=site.gateway)
    child = made_of(middle, **NOBODY)
    made = site.derive(child, false_one, DEIDENTIFY, signer=site.gateway)
    verdict = site.verdict(child, [made], parent, false_one)
    assert (verdict.token, verdict.differing) == (Token.MISMATCH, ("Laterality",))


def test_pixels_that_only_a_named_decoder_shows_were_not_kept(site):
    """Who may change DecodedPixels can have another image shown as this one: no reason says that the pixels were kept."""
    forged = make_subject(8)
    statement = derived("burn-in", "DecodedPixels", "SOPInstanceUID")
    parent = site.seal(site.original)
    honest = made_of(site.original)
    values = dict(honest.attributes) | {content.PIXELS: str(honest.digests["px1-sha256"])}
    values[content.DECODED] = f"{forged.digests['px1-sha256']} mine 1"
    key = content.derived_key(site.study_secret, parent.record.value.id(site.domain), values)
    kept = {name: parent.salts.salt(name) for name in content.ITEMS if name not in statement.changed}
    committed = content.commit(values, content.Salts(key, kept))
    made = site.derive(honest, parent, statement, signer=site.gateway, in_log=False)
    salts = b"".join(kept.values())
    text = statement.with_salts(key, salts).text()
    record = signed_again(site, made.record.value, site.gateway, content=committed.root, statement=text)
    seal = made.model_copy(
        update=record | {"leaves": b"".join(committed.leaves), "image_key": key, "kept": salts, "decoder": "mine 1"}
    )
    verdict = site.verdict(replace(forged, attributes=honest.attributes), [seal], parent)
    assert verdict.token is Token.DERIVED
    assert "the pixels were changed" in verdict.reasons[0]
    assert verdict.checks["integrity"].status == "not_checked"


# ---- evidence that proves nothing ----


def child_of(site: Site, **changes: object) -> tuple[Subject, Seal, Seal]:
    parent = site.seal(site.original)
    child = made_of(site.original, **NOBODY)
    return child, parent, site.derive(child, parent, DEIDENTIFY, signer=site.gateway, **changes)


def test_a_missing_parent_is_not_checked(site):
    child, _, made = child_of(site)
    verdict = site.verdict(child, [made])
    assert (verdict.token, verdict.exit_code) == (Token.NOT_CHECKED, 7)


@pytest.mark.parametrize(
    "place", ["leaves", "signature", "image_key", "kept", "kept pixels", "no kept", "no leaves", "statement"]
)
def test_damage_anywhere_in_a_lineage_accuses_nobody(site, place):
    child, parent, made = child_of(site)
    bundle = site.anchored([made], records=shown(parent))

    def flipped(data: bytes, at: int = 5) -> bytes:
        return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]

    seal, record = bundle.seals[0], bundle.records[0]
    text = str(seal.record.statement)
    damaged = {
        "leaves": ({}, {"leaves": flipped(record.leaves)}),
        "no leaves": ({}, {"leaves": None}),
        "signature": ({}, {"signature": flipped(record.signature)}),
        "image_key": ({"image_key": flipped(seal.image_key)}, {}),
        "kept pixels": ({"kept": flipped(seal.kept)}, {}),
        "kept": ({"kept": flipped(seal.kept, 16 * 20)}, {}),
        "no kept": ({"kept": None}, {}),
        "statement": ({"record": seal.record.model_copy(update={"statement": text + " "})}, {}),
    }[place]
    bundle = bundle.model_copy(
        update={
            "seals": (seal.model_copy(update=damaged[0]),),
            "records": (record.model_copy(update=damaged[1]),),
        }
    )
    verdict = verdict_of(child, bundle, site)
    assert (verdict.token, verdict.exit_code) == (Token.NOT_CHECKED, 7)


def test_nobody_makes_a_seal_accuse_with_salts_of_their_own(site):
    """Kept salts on a record that is bound to none would each look like a difference."""
    seal = site.seal(site.original)
    salts = [seal.salts.salt(name) for name in content.ITEMS]
    salts[2] = bytes(16)
    bundle = site.anchored([seal.model_copy(update={"kept": b"".join(salts)})])
    assert verdict_of(site.original, bundle, site).token is Token.NOT_CHECKED


def test_a_manifest_is_nobodys_parent(site):
    child, parent, made = child_of(site, in_log=False)
    head = vars(parent.record.value) | {"profile": "manifest-1"}
    listed = signed_again(site, ManifestRecord(**head, kind="heartbeat", count=0), site.cro)
    manifest = RecordEntry(**listed, leaves=parent.leaves)
    again = signed_again(site, made.record.value, site.gateway, parents=(manifest.record.value.id(site.domain),))
    verdict = site.verdict(child, [made.model_copy(update=again)], parent, manifest)
    assert verdict.token is Token.NOT_CHECKED
    assert "record of an image" in verdict.reasons[0]


def test_another_profile_of_the_same_content_is_damage(site):
    parent = site.seal(site.original)
    step = site.derive(site.original, parent, Statement("stored"), signer=site.cro, profile="px1-blake3/attributes-1")
    assert site.verdict(site.original, [step], parent).token is Token.NOT_CHECKED


@pytest.mark.parametrize(
    "statement",
    ["{}", '{"operation":"burn-in","changed":[]}', '{"operation":"burn-in","changed":["PixelData"],"more":1}', "no JSON"],
)
def test_a_statement_that_is_none_proves_nothing(site, statement):
    child, parent, made = child_of(site, in_log=False)
    again = signed_again(site, made.record.value, site.gateway, action="derived", statement=statement)
    assert site.verdict(child, [made.model_copy(update=again)], parent).token is Token.NOT_CHECKED


@pytest.mark.parametrize(("length", "token"), [(64, Token.AUTHENTIC), (65, Token.NOT_CHECKED)])
def test_a_lineage_has_at_most_64_records(site, length, token):
    chain: list[Entry] = [site.seal(site.original)]
    while len(chain) < length - 1:
        chain.append(site.step(chain[-1], Statement("stored"), signer=site.cro))
    last = site.derive(
        site.original, chain[0], Statement("stored"), signer=site.cro, parents=(chain[-1].record.value.id(site.domain),)
    )
    assert site.verdict(site.original, [last], *chain).token is token


@pytest.mark.timeout(60)
def test_a_lineage_with_very_many_ways_through_it_takes_one_look_at_each_record(site):
    """Thirty generations of two, each made from both before: 2^30 ways lead to the first."""
    first = site.seal(site.original)
    everything: list[Entry] = [first, site.seal(made_of(site.original, 4, "1.4"))]
    salts = b"".join(first.salts.salt(name) for name in content.ITEMS)
    statement = derived("secondary-capture").with_salts(first.image_key, salts)
    for _ in range(30):
        ids = tuple(one.record.value.id(site.domain) for one in everything[-2:])
        for text in (statement.text(), statement.text() + " "):
            record = CustodyRecord(**vars(first.record.value), parents=ids, action="derived", statement=text)
            everything.append(first.model_copy(update=signed_again(site, record, site.gateway) | {"kept": salts}))
    verdict = site.verdict(site.original, [everything[-1]], *everything[:-1])
    assert verdict.token is Token.AUTHENTIC
    assert len(verdict.custody) == 61


# ---- keys, times, the chain ----


@pytest.mark.parametrize("link", ["child", "parent", "first"])
def test_a_wrong_role_at_any_link_is_revoked(site, link):
    signers = {"first": site.signer, "parent": site.gateway, "child": site.gateway} | {link: site.cro}
    first = site.seal(site.original, signer=signers["first"])
    middle = made_of(site.original, uid="1.5", ViewPosition="PA")
    made = site.derive(middle, first, derived("correction", "SOPInstanceUID", "ViewPosition"), signer=signers["parent"])
    child = made_of(middle, **NOBODY)
    last = site.derive(child, made, DEIDENTIFY, signer=signers["child"])
    verdict = site.verdict(child, [last], first, made)
    assert verdict.token is Token.REVOKED
    assert "may not" in verdict.reasons[0]


@pytest.mark.parametrize("link", ["first", "parent"])
@pytest.mark.parametrize(("since", "token"), [(START + 50, Token.REVOKED), (START + 51, Token.DERIVED)])
def test_a_key_that_was_stolen_before_revokes_all_that_was_made_from_it(site, link, since, token):
    child, parent, made = child_of(site)
    key = site.signer.key if link == "first" else site.gateway.key
    verdict = site.verdict(child, [made], parent, keys=(KeyNotice(key=key, compromised_since=since),))
    assert verdict.token is token


def test_two_records_in_a_parents_slot_revoke_the_child(site):
    child, parent, made = child_of(site)
    rival = site.seal(make_subject(9, SOPInstanceUID="1.7"), counter=0, previous=bytes(32))
    assert site.verdict(child, [made], parent, rival).token is Token.REVOKED


@pytest.mark.parametrize(("claimed", "token"), [(START + 50, Token.DERIVED), (START + 49, Token.MISMATCH)])
def test_a_step_that_claims_to_be_older_than_its_parent_is_a_mismatch(site, claimed, token):
    """Each claim by itself is within the tolerance of the blocks."""
    parent = site.seal(site.original, claimed_time=START + 350)
    child = made_of(site.original, **NOBODY)
    made = site.derive(child, parent, DEIDENTIFY, signer=site.gateway, claimed_time=claimed)
    verdict = site.verdict(child, [made], parent)
    assert verdict.token is token
    if token is Token.MISMATCH:
        assert "claimedTime" in verdict.reasons[0]
        assert verdict.checks["time"].status == "failed"


def test_a_step_that_was_on_chain_before_its_parent_was_made_is_a_mismatch(site):
    site.mine(6)
    parent = site.seal(site.original, beacon_number=6, beacon_hash=site.hash_of(6))
    child = made_of(site.original, **NOBODY)
    made = site.derive(child, parent, DEIDENTIFY, signer=site.gateway)
    bundle = site.anchored([made], records=shown(parent), headers=(site.headers[3], site.headers[6]))
    assert verify(child, Evidence([bundle], site.trust(6, 8))).token is Token.MISMATCH


@pytest.mark.parametrize("unanchored", ["child", "parent", "both"])
def test_a_lineage_that_is_not_all_on_chain_is_pending(site, unanchored):
    parent = site.seal(site.original, in_log=unanchored == "child")
    child = made_of(site.original, **NOBODY)
    made = site.derive(child, parent, DEIDENTIFY, signer=site.gateway, in_log=unanchored == "parent")
    verdict = site.verdict(child, [made], parent)
    assert (verdict.token, verdict.exit_code) == (Token.PENDING, 4)


def test_a_lineage_in_a_block_that_is_not_settled_is_pending(site):
    child, parent, made = child_of(site)
    bundle = site.anchored([made], records=shown(parent))
    facts = Facts({8: site.hash_of(8)}, settled=7)
    assert verify(child, Evidence([bundle], site.trust(), facts)).token is Token.PENDING


def test_a_parent_that_is_not_on_chain_outweighs_nothing_that_is(site):
    """Who may transform, and edits, cannot hide ALTERED behind a parent of their own that waits for the chain."""
    honest = site.anchored([site.seal(site.original)])
    edited = replace(site.original, digests=make_subject(3).digests)
    acquired = site.seal(edited, signer=site.gateway, in_log=False)
    made = site.derive(edited, acquired, Statement("transcoded", {"transfer_syntax": "1.2"}), signer=site.gateway)
    forged = site.anchored([made], records=shown(acquired), state_block=9)
    trust = site.trust(8, 9)
    assert verify(edited, Evidence([forged], trust)).token is Token.PENDING
    for bundles in ([honest, forged], [forged, honest]):
        assert verify(edited, Evidence(bundles, trust)).token is Token.ALTERED


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_gives_derived_and_says_what_it_changed(site, operation):
    pixels = None if operation == "correction" else 5
    changed = ["SOPInstanceUID", "ImageType", *(["PixelData"] if pixels else [])]
    child = made_of(site.original, pixels, ImageType="DERIVED")
    parent = site.seal(site.original)
    verdict = site.verdict(child, [site.derive(child, parent, derived(operation, *changed), signer=site.gateway)], parent)
    assert verdict.token is Token.DERIVED
    assert verdict.reasons[0].startswith(operation)
    assert all(name in verdict.reasons[0] for name in changed)
    assert verdict.custody[-1].changed == tuple(sorted(changed, key=content.ITEMS.index))
