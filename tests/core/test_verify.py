"""Each verdict, from evidence that deserves it, offline and with facts from the chain."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from ledger.core import contracts
from ledger.core.certificates import Device
from ledger.core.contracts import KeyState
from ledger.core.records import Role
from ledger.core.trust import DeviceNotice, Facts, KeyNotice, Policy
from ledger.core.verdict import EXIT_CODES, SEVERITY, Token, Verdict, worst
from ledger.core.verify import Evidence, verify
from ledger.keys import authority, signers
from tests.core.conftest import make_subject, subject_of
from tests.simulators.ledger import REGISTRY, START, World


def verdict_of(subject, bundle, trust, facts=None) -> Verdict:
    return verify(subject, Evidence([bundle], trust, facts))


@pytest.mark.parametrize("curve", ["secp256k1", "p256"])
@pytest.mark.parametrize("profile", ["px1-sha256", "px1-blake3"])
def test_what_an_enrolled_device_sealed_is_authentic_offline(curve, profile):
    world = World(curve)
    subject = make_subject()
    bundle = world.anchored([world.seal(subject, profile)])
    verdict = verdict_of(subject, bundle, world.trust(8))
    assert verdict.token is Token.AUTHENTIC
    assert verdict.sealed_between == (world.time_of(3), world.time_of(5))
    assert verdict.device == world.device.name
    assert {axis: check.status for axis, check in verdict.checks.items()} == {
        "integrity": "ok",
        "identity": "ok",
        "time": "ok",
        "completeness": "not_checked",
        "patient": "ok",
    }


def test_the_same_online_without_any_block_in_the_trust_file(world):
    subject = make_subject()
    bundle = world.anchored([world.seal(subject)])
    facts = Facts({8: world.hash_of(8)}, settled=8)
    assert verdict_of(subject, bundle, world.trust(), facts).token is Token.AUTHENTIC


def test_one_of_many_is_found_and_wrong_tokens_are_damage(world):
    subjects = [make_subject(seed, SOPInstanceUID=f"1.2.{seed}") for seed in range(40)]
    bundle = world.anchored([world.seal(subject) for subject in subjects])
    trust = world.trust(8)
    assert all(verdict_of(subject, bundle, trust).token is Token.AUTHENTIC for subject in subjects)
    blind = bundle.model_copy(update={"seals": tuple(seal.model_copy(update={"find": bytes(16)}) for seal in bundle.seals)})
    assert all(verdict_of(subject, blind, trust).token is Token.NOT_CHECKED for subject in subjects)


def test_one_of_very_many_with_the_same_pixels_is_found(world):
    """A series of black frames: the image's own seal is looked at, however many have its pixels."""
    subjects = [make_subject(SOPInstanceUID=f"1.2.{number}") for number in range(70)]
    bundle = world.anchored([world.seal(subject) for subject in subjects])
    for subject in (subjects[0], subjects[-1]):
        assert verdict_of(subject, bundle, world.trust(8)).token is Token.AUTHENTIC


def test_changed_pixels_are_altered_and_shown_where(world):
    frame = np.random.default_rng(1).integers(0, 4096, (130, 70), dtype=np.uint16)
    sealed = subject_of(frame)
    bundle = world.anchored([world.seal(sealed, tiles=True)])
    edited = frame.copy()
    edited[100, 65] ^= 1
    verdict = verdict_of(subject_of(edited), bundle, world.trust(8))
    assert verdict.token is Token.ALTERED
    assert [(tile.x, tile.y, tile.width, tile.height) for tile in verdict.regions] == [(64, 64, 6, 64)]
    assert verdict.checks["integrity"].status == "failed"


@pytest.mark.parametrize(
    ("name", "value", "axis"),
    [("PatientID", "0815", "patient"), ("PixelSpacing", "1\\1", "integrity"), ("ImageType", "DERIVED", "integrity")],
)
def test_changed_attributes_are_a_mismatch_that_names_them(world, name, value, axis):
    bundle = world.anchored([world.seal(make_subject())])
    verdict = verdict_of(make_subject(**{name: value}), bundle, world.trust(8))
    assert verdict.token is Token.MISMATCH
    assert verdict.differing == (name,)
    assert name in verdict.reasons[0]
    assert value not in " ".join(verdict.reasons)
    assert verdict.checks[axis].status == "failed"


def test_an_image_with_another_instance_uid_is_found_by_its_pixels(world):
    bundle = world.anchored([world.seal(make_subject())])
    verdict = verdict_of(make_subject(SOPInstanceUID="9.9"), bundle, world.trust(8))
    assert (verdict.token, verdict.differing) == (Token.MISMATCH, ("SOPInstanceUID",))


def test_an_image_without_a_record_is_unregistered(world):
    bundle = world.anchored([world.seal(make_subject())])
    verdict = verdict_of(make_subject(2, SOPInstanceUID="9.9"), bundle, world.trust(8))
    assert (verdict.token, verdict.exit_code) == (Token.UNREGISTERED, 3)
    assert {check.status for check in verdict.checks.values()} == {"not_checked"}


def test_a_lossy_original_and_what_its_named_decoder_makes_of_it_are_authentic(world):
    from ledger.core import stored_pixels
    from ledger.core.search import Subject

    decoded = make_subject()
    cs1 = stored_pixels.cs1("JPEG", [b"codestream"], bytes(32))
    original = Subject(decoded.attributes, {"cs1-sha256": cs1}, {"px1-sha256": "lossy"})
    seal = world.seal(original, "cs1-sha256", decoder="libjpeg 1", decoded=decoded.digests["px1-sha256"])
    bundle = world.anchored([seal])
    for subject in (original, decoded):
        assert verdict_of(subject, bundle, world.trust(8)).token is Token.AUTHENTIC
    assert verdict_of(make_subject(2), bundle, world.trust(8)).token is Token.ALTERED
    other = seal.model_copy(update={"decoder": "libjpeg 2"})
    assert verdict_of(decoded, world.anchored([other]), world.trust(8)).token is Token.ALTERED


# ---- finality ----


def test_a_seal_that_is_not_anchored_is_pending(world):
    subject = make_subject()
    verdict = verdict_of(subject, world.bundle([world.seal(subject)]), world.trust(8) if 8 in world.headers else world.trust())
    assert (verdict.token, verdict.exit_code) == (Token.PENDING, 4)
    assert verdict.checks["identity"].status == "not_checked"


def test_a_pending_seal_still_shows_changed_pixels_and_patients(world):
    bundle = world.bundle([world.seal(make_subject())])
    assert verdict_of(make_subject(2), bundle, world.trust()).token is Token.ALTERED
    assert verdict_of(make_subject(PatientID="x"), bundle, world.trust()).token is Token.MISMATCH


def test_a_block_that_is_not_settled_is_pending(world):
    subject = make_subject()
    bundle = world.anchored([world.seal(subject)])
    facts = Facts({8: world.hash_of(8)}, settled=7)
    assert verdict_of(subject, bundle, world.trust(), facts).token is Token.PENDING


def test_a_block_that_nobody_vouches_for_is_not_checked(world):
    subject = make_subject()
    verdict = verdict_of(subject, world.anchored([world.seal(subject)]), world.trust())
    assert (verdict.token, verdict.exit_code) == (Token.NOT_CHECKED, 6)
    assert "trust update" in verdict.reasons[0]


@pytest.mark.parametrize("online", [True, False])
def test_another_block_at_that_height_is_an_error_and_no_verdict(world, online):
    subject = make_subject()
    bundle = world.anchored([world.seal(subject)])
    world.storage[contracts_address()][bytes(32)] = 1
    world.mine(8)
    trust = world.trust() if online else world.trust(8)
    facts = Facts({8: world.hash_of(8)}, settled=8) if online else Facts()
    verdict = verdict_of(subject, bundle, trust, facts)
    assert (verdict.token, verdict.exit_code) == (Token.NOT_CHECKED, 6)


def contracts_address() -> bytes:
    from tests.simulators.ledger import ANCHOR_LOG

    return ANCHOR_LOG


# ---- keys ----


@pytest.mark.parametrize(
    ("enrolment", "token"),
    [
        ({"enrolled": START + 50}, Token.AUTHENTIC),
        ({"enrolled": START + 51}, Token.REVOKED),
        ({"retired": START + 50}, Token.AUTHENTIC),
        ({"retired": START + 49}, Token.REVOKED),
        ({"compromised": START + 51}, Token.AUTHENTIC),
        ({"compromised": START + 50}, Token.REVOKED),
        ({"compromised": 1}, Token.REVOKED),
        ({"roles": Role.HOLD | Role.TRANSFORM}, Token.REVOKED),
        ({"roles": Role.HOLD | Role.ACQUIRE}, Token.AUTHENTIC),
    ],
)
def test_a_key_counts_as_it_stood_at_the_anchors_block_time(world, enrolment, token):
    world.enrol(world.signer, world.certificate, **enrolment)
    subject = make_subject()
    assert verdict_of(subject, world.anchored([world.seal(subject)]), world.trust(8)).token is token


def test_a_key_that_was_never_enrolled_is_revoked(world):
    stranger = signers.new_key("secp256k1")
    certificate = world.certify(stranger, world.device)
    subject = make_subject()
    bundle = world.anchored([world.seal(subject, signer=stranger)], certificates=(certificate.der,))
    verdict = verdict_of(subject, bundle, world.trust(8))
    assert verdict.token is Token.REVOKED
    assert "never enrolled" in verdict.reasons[0]


def test_a_certificate_of_a_foreign_authority_is_revoked(world):
    from datetime import UTC, datetime

    foreign = authority.new_authority("Test site", datetime.fromtimestamp(START, UTC))
    certificate = world.certify(world.signer, world.device, foreign)
    world.enrol(world.signer, certificate)
    subject = make_subject()
    bundle = world.anchored([world.seal(subject)], certificates=(certificate.der,))
    verdict = verdict_of(subject, bundle, world.trust(8))
    assert verdict.token is Token.REVOKED
    assert "authority" in verdict.reasons[0]


def test_another_certificate_than_the_enrolled_one_proves_nothing(world):
    other = world.certify(world.signer, Device("Acme", "CT 3000", "0000", "CT9", "Test site"))
    subject = make_subject()
    bundle = world.anchored([world.seal(subject)], certificates=(other.der,))
    assert verdict_of(subject, bundle, world.trust(8)).token is Token.NOT_CHECKED


@pytest.mark.parametrize("since", [START + 50, START + 49])
def test_news_of_a_stolen_key_reaches_old_evidence(world, since):
    subject = make_subject()
    bundle = world.anchored([world.seal(subject)])
    key = world.signer.key
    known = world.trust(8, keys=(KeyNotice(key=key, compromised_since=since),))
    assert verdict_of(subject, bundle, known).token is Token.REVOKED
    state = KeyState(world.certificate.fingerprint, START, 0, since, Role.ACQUIRE)
    assert verdict_of(subject, bundle, world.trust(8), Facts(keys={key: state})).token is Token.REVOKED


def test_news_after_the_anchor_changes_nothing(world):
    subject = make_subject()
    bundle = world.anchored([world.seal(subject)])
    trust = world.trust(8, keys=(KeyNotice(key=world.signer.key, compromised_since=START + 51, retired_at=START + 51),))
    assert verdict_of(subject, bundle, trust).token is Token.AUTHENTIC


def test_a_compromised_key_is_never_pending(world):
    subject = make_subject()
    bundle = world.bundle([world.seal(subject)])
    trust = world.trust(keys=(KeyNotice(key=world.signer.key, compromised_since=1),))
    assert verdict_of(subject, bundle, trust).token is Token.REVOKED


def test_two_records_in_one_slot_are_the_end_of_a_key(world):
    first, second = make_subject(), make_subject(2, SOPInstanceUID="1.2.9")
    seals = [world.seal(first), world.seal(second, counter=0, previous=bytes(32))]
    bundle = world.anchored(seals)
    for subject in (first, second):
        verdict = verdict_of(subject, bundle, world.trust(8))
        assert verdict.token is Token.REVOKED
        assert "two different records" in verdict.reasons[0]


def test_a_forged_rival_does_not_harm_a_genuine_record(world):
    subject = make_subject()
    seal = world.seal(subject)
    forged = seal.model_copy(update={"record": seal.record.model_copy(update={"content": bytes(32)})})
    bundle = world.anchored([seal])
    bundle = bundle.model_copy(update={"seals": (*bundle.seals, forged)})
    assert verdict_of(subject, bundle, world.trust(8)).token is Token.AUTHENTIC


# ---- time ----


@pytest.mark.parametrize(
    ("claimed", "token"),
    [
        (START + 30 - 300, Token.AUTHENTIC),
        (START + 30 - 301, Token.MISMATCH),
        (START - 10**8, Token.MISMATCH),
        (START + 50 + 300, Token.AUTHENTIC),
        (START + 50 + 301, Token.MISMATCH),
    ],
)
def test_a_claimed_time_that_the_blocks_contradict_is_a_mismatch(world, claimed, token):
    subject = make_subject()
    verdict = verdict_of(subject, world.anchored([world.seal(subject, claimed_time=claimed)]), world.trust(8))
    assert verdict.token is token
    if token is Token.MISMATCH:
        assert "claimedTime" in verdict.reasons[0]
        assert verdict.checks["time"].status == "failed"


def test_a_policy_may_allow_a_wrong_clock(world):
    subject = make_subject()
    bundle = world.anchored([world.seal(subject, claimed_time=START + 7200)])
    trust = world.trust(8, policy=Policy(clock_tolerance_s=8000))
    assert verdict_of(subject, bundle, trust).token is Token.AUTHENTIC


def test_a_beacon_that_nobody_proves_gives_no_lower_bound(world):
    subject = make_subject()
    bundle = world.anchored([world.seal(subject, beacon_hash=b"\7" * 32)], headers=())
    verdict = verdict_of(subject, bundle, world.trust(8))
    assert verdict.token is Token.AUTHENTIC
    assert verdict.sealed_between == (None, world.time_of(5))


# ---- stripped ----


@pytest.mark.parametrize(
    ("date", "token"),
    [("20990101", Token.STRIPPED), (None, Token.STRIPPED), ("20000101", Token.UNREGISTERED), ("20231114", Token.UNREGISTERED)],
)
@pytest.mark.parametrize("online", [True, False])
def test_a_device_that_seals_everything_makes_a_missing_record_tell(world, date, token, online):
    device = {"Manufacturer": "Acme", "ManufacturerModelName": "CT 3000", "DeviceSerialNumber": "4711"}
    subject = make_subject(9, SOPInstanceUID="9.9", StudyDate=date, **device)
    notice = DeviceNotice(device=world.device.id, name="ct1", seals_everything_since=START)
    trust = world.trust() if online else world.trust(devices=(notice,))
    facts = Facts(devices={world.device.id: START}) if online else Facts()
    verdict = verify(subject, Evidence([], trust, facts))
    assert verdict.token is token


def test_a_device_that_does_not_seal_everything_makes_no_one_stripped(world):
    device = {"Manufacturer": "Acme", "ManufacturerModelName": "CT 3000", "DeviceSerialNumber": "4711"}
    subject = make_subject(9, **device)
    facts = Facts(devices={world.device.id: 0})
    assert verify(subject, Evidence([], world.trust(), facts)).token is Token.UNREGISTERED


# ---- many ----


def test_the_worst_of_many_decides_in_the_documented_order():
    assert SEVERITY == (1, 5, 8, 9, 6, 7, 3, 4, 0)
    verdicts = [Verdict(token) for token in Token]
    assert worst(verdicts).exit_code == 1
    assert worst([Verdict(Token.NOT_CHECKED), Verdict(Token.NOT_CHECKED, exit_code=6), Verdict(Token.PENDING)]).exit_code == 6
    assert worst([Verdict(Token.AUTHENTIC), Verdict(Token.PENDING), Verdict(Token.UNREGISTERED)]).exit_code == 3
    assert worst([]) is None
    assert set(EXIT_CODES) == set(Token)
    assert contracts.KEYS_SLOT is not None


# ---- from a review ----


def test_a_key_enrolled_after_the_anchor_is_revoked_online_too(world):
    state = KeyState(world.certificate.fingerprint, START + 99, 0, 0, Role.ACQUIRE)
    for slot in contracts.key_slots(world.signer.key):
        world.storage[REGISTRY][slot] = 0
    subject = make_subject()
    bundle = world.anchored([world.seal(subject)])
    facts = Facts(keys={world.signer.key: state})
    assert verdict_of(subject, bundle, world.trust(8), facts).token is Token.REVOKED


@pytest.mark.parametrize(
    "profile", ["px1-sha256/attributes-2", "px1-sha256", "px2-sha256/attributes-1", "px1-sha256/attributes-1/x"]
)
def test_a_record_of_an_unknown_profile_proves_nothing(world, profile):
    subject = make_subject()
    bundle = world.anchored([world.seal(subject, profile_name=profile)])
    assert verdict_of(subject, bundle, world.trust(8)).token is Token.NOT_CHECKED


def test_an_authority_that_was_not_valid_any_more_issues_nothing(world):
    subject = make_subject()
    late = (20 * 365 * 86400) // 10 + 5
    world.enrol(world.signer, world.certificate)
    bundle = world.anchored([world.seal(subject, claimed_time=world.time_of(late))], block=late, state_block=late + 1)
    assert verdict_of(subject, bundle, world.trust(late + 1)).token is Token.REVOKED


def test_a_block_time_beyond_the_calendar_is_no_crash(world):
    subject = make_subject()
    seal = world.seal(subject, claimed_time=2**63)
    assert verdict_of(subject, world.bundle([seal]), world.trust()).token is Token.REVOKED


def test_a_seal_that_is_not_on_chain_does_not_outweigh_one_that_is(world):
    sealed = world.anchored([world.seal(make_subject())])
    edited = make_subject(2)
    stranger = signers.new_key("secp256k1")
    certificate = world.certify(stranger, world.device)
    junk = world.bundle([world.seal(edited, signer=stranger, in_log=False)], certificates=(certificate.der,))
    assert verify(edited, Evidence([sealed, junk], world.trust(8))).token is Token.ALTERED


@pytest.mark.parametrize(
    "state",
    [
        KeyState(bytes(32), 0, 0, 0, Role(0)),
        KeyState(b"certificate", START, START + 1, 0, Role.ACQUIRE),
        KeyState(b"certificate", START, 0, 0, Role.HOLD),
    ],
)
def test_a_pending_seal_by_a_key_that_the_chain_does_not_let_seal_is_revoked(world, state):
    if any(state.certificate):
        state = replace(state, certificate=world.certificate.fingerprint)
    subject = make_subject()
    bundle = world.bundle([world.seal(subject)])
    assert verdict_of(subject, bundle, world.trust(), Facts(keys={world.signer.key: state})).token is Token.REVOKED


def test_a_swapped_certificate_is_damage_before_it_is_anything_else(world):
    foreign = authority.new_authority("Test site", datetime.fromtimestamp(START, UTC))
    swapped = world.certify(world.signer, world.device, foreign)
    subject = make_subject()
    bundle = world.anchored([world.seal(subject)], certificates=(swapped.der,))
    assert verdict_of(subject, bundle, world.trust(8)).token is Token.NOT_CHECKED


def test_a_registry_date_beyond_the_calendar_is_no_crash(world):
    device = {"Manufacturer": "Acme", "ManufacturerModelName": "CT 3000", "DeviceSerialNumber": "4711"}
    facts = Facts(devices={world.device.id: 2**48 - 1})
    assert verify(make_subject(9, **device), Evidence([], world.trust(), facts)).token is Token.UNREGISTERED
