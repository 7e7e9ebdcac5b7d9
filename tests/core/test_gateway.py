"""A gateway tells since when an image is what it is. It makes no image authentic, and hides nothing that others signed."""

from dataclasses import replace

import pytest

from ledger.core import content
from ledger.core.custody import Statement
from ledger.core.evidence import Seal
from ledger.core.explanation import explain
from ledger.core.records import Role
from ledger.core.search import Subject
from ledger.core.trust import DeviceNotice, KeyNotice
from ledger.core.verdict import Token
from ledger.core.verify import Evidence, verify
from tests.core.conftest import make_subject
from tests.simulators.ledger import START
from tests.simulators.site import DEIDENTIFY, NOBODY, Site, derived, made_of

IN_ORDER = {Token.AUTHENTIC, Token.DERIVED, Token.DECLARED_SYNTHETIC, Token.PENDING}


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def held(site: Site) -> Seal:
    return site.hold(site.original, signer=site.cro)


def test_what_a_gateway_held_is_unregistered_and_says_who_held_it_since_when(site, held):
    verdict = site.verdict(site.original, [held])
    assert (verdict.token, verdict.exit_code, verdict.device) == (Token.UNREGISTERED, 3, None)
    assert verdict.sealed_between[1] is not None
    assert [step.action for step in verdict.custody] == ["held"]
    assert verdict.custody[0].by is not None
    assert any("held it as it is now" in reason for reason in verdict.reasons)
    assert verdict.checks["identity"].status == "not_checked"


def test_before_it_is_anchored_it_is_unregistered_too(site):
    bundle = site.bundle([site.hold(site.original, signer=site.cro, in_log=False)])
    verdict = verify(site.original, Evidence([bundle], site.trust()))
    assert verdict.token is Token.UNREGISTERED
    assert any("not final" in reason for reason in verdict.reasons)


def test_a_device_that_seals_everything_did_not_make_it(site):
    device = {"Manufacturer": "Acme", "ManufacturerModelName": "CT 3000", "DeviceSerialNumber": "4711"}
    image = make_subject(9, SOPInstanceUID="9.9", StudyDate="20990101", **device)
    notice = DeviceNotice(name="the CT", device=site.device.id, seals_everything_since=START)
    verdict = site.verdict(image, [site.hold(image, signer=site.cro)], devices=(notice,))
    assert (verdict.token, verdict.exit_code) == (Token.STRIPPED, 1)
    assert any("held it" in reason for reason in verdict.reasons)


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.HOLD])
def test_only_a_holder_signs_so(site, role):
    signer, _ = site.newcomer(role, "X")
    assert site.verdict(site.original, [site.hold(site.original, signer=signer)]).token is Token.REVOKED


def test_a_key_that_may_only_hold_acquires_nothing(site):
    verdict = site.verdict(site.original, [site.seal(site.original, signer=site.cro)])
    assert verdict.token is Token.REVOKED
    assert any("may not acquire" in reason for reason in verdict.reasons)


def test_a_change_since_shows_and_names_no_maker(site, held):
    edited = site.verdict(made_of(site.original, 3, site.original.instance), [held])
    assert (edited.token, edited.device) == (Token.ALTERED, None)
    other = site.verdict(made_of(site.original, None, site.original.instance, PatientID="X"), [held])
    assert (other.token, other.differing, other.device) == (Token.MISMATCH, ("PatientID",), None)
    assert any("without knowing where it comes from" in reason for reason in edited.reasons)


def test_who_held_the_same_pixels_as_another_instance_knows_nothing_of_this_one(site, held):
    """A black frame, or a copy under a new UID: it is no false alarm, and goes to the detector as any other image."""
    copy = made_of(site.original, None, "1.99")
    verdict = site.verdict(copy, [held])
    assert (verdict.token, verdict.record_id, verdict.custody) == (Token.UNREGISTERED, None, ())
    # Nor does it cover up what is said of this very instance.
    changed = site.hold(made_of(site.original, 3, "1.99"), signer=site.cro)
    for seals in ([held, changed], [changed, held]):
        assert site.verdict(copy, seals).token is Token.ALTERED
    # A device that sealed these pixels says which instance they are.
    assert site.verdict(copy, [held, site.seal(site.original)]).differing == ("SOPInstanceUID",)


def test_the_explanation_says_what_the_record_is_worth(site, held):
    assert "nobody signed where it comes from" in explain(site.verdict(site.original, [held])).means
    assert "No record" in explain(site.verdict(made_of(site.original, 4, "1.98"), [held])).means


def laundered(site: Site, held: Seal, how: str) -> tuple[Subject, list[Seal], list[Seal]]:
    """(image, its seals, records beside it): all that could make an image of unknown origin look like one with an origin."""
    genuine = site.seal(make_subject(40, SOPInstanceUID="1.4"))
    if how == "stored":
        return site.original, [site.derive(site.original, held, Statement("stored"), signer=site.cro)], [held]
    if how == "read after it was stored":
        stored = site.derive(site.original, held, Statement("stored"), signer=site.cro)
        reader, _ = site.newcomer(Role.READ, "R")
        return site.original, [site.derive(site.original, stored, Statement("read"), signer=reader)], [held, stored]
    if how == "de-identified":
        child = made_of(site.original, **NOBODY)
        return child, [site.derive(child, held, DEIDENTIFY, signer=site.gateway)], [held]
    child = made_of(site.original, 3)
    capture = derived("secondary-capture", *content.ITEMS[:1], *content.ITEMS[7:])
    order = [genuine, held] if how == "beside a sealed one" else [held, genuine]
    ids = tuple(one.record.value.id(site.domain) for one in order)
    return child, [site.derive(child, order[0], capture, signer=site.gateway, parents=ids)], [held, genuine]


@pytest.mark.parametrize(
    "how", ["stored", "read after it was stored", "de-identified", "beside a sealed one", "before a sealed one"]
)
def test_nothing_that_is_made_of_it_gets_an_origin(site, held, how):
    image, seals, records = laundered(site, held, how)
    verdict = site.verdict(image, seals, *records)
    assert verdict.token not in IN_ORDER
    assert verdict.token is Token.UNREGISTERED


@pytest.mark.parametrize("order", [1, -1])
def test_what_others_signed_counts_before_what_a_gateway_held(site, order):
    """However the evidence comes: a seal that fits, one that does not, and pixels that are declared synthetic."""

    def together(image: Subject, *seals: Seal) -> Token:
        bundles = [site.anchored([one], state_block=8 + number) for number, one in enumerate(seals)]
        return verify(image, Evidence(bundles[::order], site.trust(8, 9))).token

    edited = made_of(site.original, 3, site.original.instance)
    sealed = site.seal(site.original)
    assert together(site.original, site.hold(site.original, signer=site.cro), sealed) is Token.AUTHENTIC
    assert together(edited, site.hold(edited, signer=site.cro), site.seal(site.original)) is Token.ALTERED
    other = made_of(site.original, None, site.original.instance, PatientID="X")
    assert together(other, site.hold(other, signer=site.cro), site.seal(site.original)) is Token.MISMATCH
    generated = site.synthesise(made_of(site.original, 5, "1.7"), "a model", signer=site.maker)
    patients = made_of(site.original, 5, "1.8")
    assert together(patients, site.hold(patients, signer=site.cro), generated) is Token.MISMATCH


def test_of_what_two_gateways_held_the_one_that_fits_counts(site):
    later = made_of(site.original, 3, site.original.instance)
    seals = [site.hold(later, signer=site.cro), site.hold(site.original, signer=site.cro)]
    assert site.verdict(site.original, seals).token is Token.UNREGISTERED
    assert site.verdict(later, seals[::-1]).token is Token.UNREGISTERED


def test_evidence_that_cannot_be_used_is_not_covered_up(site):
    """A seal whose salts are damaged says nothing, and what a gateway held does not say it in its place."""
    damaged = site.seal(site.original)
    damaged = damaged.model_copy(update={"signature": damaged.signature[:-1] + bytes([damaged.signature[-1] ^ 1])})
    bundle = site.anchored([damaged, site.hold(site.original, signer=site.cro)])
    assert verify(site.original, Evidence([bundle], site.trust(8))).token is Token.NOT_CHECKED


def test_a_gateway_whose_key_was_stolen_proves_nothing_since(site, held):
    bundle = site.anchored([held])
    stolen = KeyNotice(key=site.cro.key, compromised_since=START)
    assert verify(site.original, Evidence([bundle], site.trust(8, keys=(stolen,)))).token is Token.REVOKED


def test_the_record_of_a_person_is_none(site):
    signer, _ = site.newcomer(Role.HOLD, person="Dr. Ada")
    assert site.verdict(site.original, [site.hold(site.original, signer=signer)]).token is Token.NOT_CHECKED


def test_a_seal_with_a_gateways_type_is_not_an_acquisition(site):
    """The type is signed: an acquisition that is called held, or the other way round, has no signature."""
    sealed, held = site.seal(site.original), site.hold(site.original, signer=site.cro)
    as_held = replace(
        held.record.value, **{name: getattr(sealed.record.value, name) for name in ("key", "counter", "previous")}
    )
    forged = sealed.model_copy(update={"record": type(held.record).of(as_held)})
    assert site.verdict(site.original, [forged]).token is Token.NOT_CHECKED
