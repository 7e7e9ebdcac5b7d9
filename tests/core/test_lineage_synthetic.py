"""What is generated stays generated: nobody launders it into a patient's image, nobody slanders a patient's image with it."""

from dataclasses import replace

import pytest

from ledger.core import content
from ledger.core.custody import OPERATIONS, Statement
from ledger.core.evidence import Bundle, Seal
from ledger.core.records import Role
from ledger.core.search import Subject
from ledger.core.verdict import Token
from ledger.core.verify import Evidence, verify
from tests.core.conftest import make_subject
from tests.simulators.site import DEIDENTIFY, NOBODY, Site, derived, made_of, shown


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def generated(site: Site) -> tuple[Subject, Seal]:
    made = make_subject(2, SOPInstanceUID="1.7", PatientName="Synthetic^One")
    return made, site.synthesise(made, "StyleGAN3", signer=site.maker)


def test_what_is_generated_says_so_whatever_is_made_of_it(site, generated):
    made, seal = generated
    verdict = site.verdict(made, [seal])
    assert (verdict.token, verdict.exit_code, verdict.generator) == (Token.DECLARED_SYNTHETIC, 9, "StyleGAN3")
    entries, child = [seal], made
    for number, operation in enumerate(OPERATIONS):
        pixels = None if operation == "correction" else 20 + number
        child = made_of(child, pixels, f"1.7.{number}")
        changed = ("SOPInstanceUID",) if pixels is None else ("PixelData", "SOPInstanceUID")
        entries.append(site.derive(child, entries[-1], derived(operation, *changed), signer=site.gateway))
        found = site.verdict(child, [entries[-1]], *entries[:-1])
        assert (found.token, found.generator) == (Token.DECLARED_SYNTHETIC, "StyleGAN3")
        assert any("StyleGAN3" in reason for reason in found.reasons)


def test_a_deidentified_or_stored_synthetic_image_is_still_synthetic(site, generated):
    made, seal = generated
    child = made_of(made, **NOBODY)
    deidentified = site.derive(child, seal, DEIDENTIFY, signer=site.gateway)
    assert site.verdict(child, [deidentified], seal).token is Token.DECLARED_SYNTHETIC
    stored = site.derive(made, seal, Statement("stored"), signer=site.cro)
    assert site.verdict(made, [stored], seal).token is Token.DECLARED_SYNTHETIC


@pytest.mark.parametrize("position", [1, 5])
def test_a_collage_with_a_synthetic_part_is_synthetic(site, generated, position):
    _, seal = generated
    others = [site.seal(make_subject(40 + number, SOPInstanceUID=f"1.4.{number}")) for number in range(position)]
    child = made_of(site.original, 3)
    ids = tuple(one.record.value.id(site.domain) for one in (*others, seal))
    capture = derived("secondary-capture", "PixelData", "SOPInstanceUID")
    result = site.derive(child, others[0], capture, signer=site.gateway, parents=ids)
    assert site.verdict(child, [result], *others, seal).token is Token.DECLARED_SYNTHETIC


def as_a_patients(site: Site, made: Subject, how: str) -> tuple[Subject, Bundle]:
    """Synthetic pixels in evidence of their own that calls them a patient's."""
    patient = made_of(made, uid="1.7" if how == "the same instance" else "1.99", PatientName="Doe^Jane", PatientID="4711")
    if how == "another study":
        patient = made_of(patient, uid="1.98", StudyInstanceUID="9.9", SeriesInstanceUID="9.9.1")
    if how == "collage":
        parent = site.seal(site.original)
        capture = derived("secondary-capture", *content.ITEMS[:1], *content.ITEMS[7:])
        patient = replace(patient, attributes={**patient.attributes, "StudyInstanceUID": "9.9"})
        seal, records = site.derive(patient, parent, capture, signer=site.gateway), [parent]
    elif how == "sealed, then de-identified":
        acquired = site.seal(patient)
        patient = made_of(patient, uid="1.97", **NOBODY)
        seal, records = site.derive(patient, acquired, DEIDENTIFY, signer=site.gateway), [acquired]
    else:
        seal, records = site.seal(patient), []
    return patient, site.anchored([seal], records=shown(*records), state_block=9)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    "how", ["another instance", "the same instance", "another study", "collage", "sealed, then de-identified"]
)
def test_synthetic_pixels_are_nobodys_image_whoever_seals_them(site, generated, how, order):
    made, seal = generated
    declared = site.anchored([seal])
    patient, laundered = as_a_patients(site, made, how)
    trust = site.trust(8, 9)
    verdict = verify(patient, Evidence([declared, laundered][::order], trust))
    assert verdict.token is Token.MISMATCH
    assert verdict.generator == "StyleGAN3"
    assert verdict.exit_code == 1
    # What was declared keeps its verdict.
    assert verify(made, Evidence([declared, laundered][::order], trust)).token is Token.DECLARED_SYNTHETIC


def test_synthetic_pixels_beside_the_very_same_attributes_are_synthetic(site, generated):
    made, seal = generated
    declared, laundered = site.anchored([seal]), site.anchored([site.seal(made)], state_block=9)
    for bundles in ([declared, laundered], [laundered, declared]):
        assert verify(made, Evidence(bundles, site.trust(8, 9))).token is Token.DECLARED_SYNTHETIC


@pytest.mark.parametrize("role", [Role.HOLD, Role.ACQUIRE, Role.TRANSFORM])
def test_nobody_without_the_role_makes_a_patients_image_synthetic(site, role):
    """A record that is not on chain, or of a key that may not generate, leaves the patient's image what it is."""
    signer, _ = site.newcomer(role, "X")
    honest = site.anchored([site.seal(site.original)])
    elsewhere = made_of(site.original, PatientID="0815")
    slanders = [
        site.bundle([site.synthesise(site.original, "a model", signer=signer, in_log=False)]),
        site.bundle([site.synthesise(elsewhere, "a model", signer=signer, in_log=False)]),
        site.anchored([site.synthesise(site.original, "a model", signer=signer)], state_block=9),
        site.anchored([site.synthesise(elsewhere, "a model", signer=signer)], state_block=9),
    ]
    for slander in slanders:
        assert verify(site.original, Evidence([slander, honest], site.trust(8, 9))).token is Token.AUTHENTIC


def test_nobody_slanders_by_deriving_from_a_synthetic_record_that_is_not_on_chain(site):
    honest = site.anchored([site.seal(site.original)])
    pending = site.synthesise(site.original, "a model", signer=site.gateway, in_log=False)
    child = made_of(site.original, PatientID="0815")
    made = site.derive(child, pending, derived("correction", "SOPInstanceUID", "PatientID"), signer=site.gateway)
    slander = site.anchored([made], records=shown(pending), state_block=9)
    assert verify(site.original, Evidence([slander, honest], site.trust(8, 9))).token is Token.AUTHENTIC


def test_a_pending_synthetic_record_is_pending(site):
    made = make_subject(2, SOPInstanceUID="1.7")
    bundle = site.bundle([site.synthesise(made, "a model", signer=site.maker, in_log=False)])
    verdict = verify(made, Evidence([bundle], site.trust()))
    assert (verdict.token, verdict.exit_code) == (Token.PENDING, 4)
    assert any("generated by a model" in reason for reason in verdict.reasons)


def test_changed_pixels_of_a_synthetic_image_are_altered(site, generated):
    made, seal = generated
    verdict = site.verdict(replace(made, digests=make_subject(30).digests), [seal])
    assert (verdict.token, verdict.generator) == (Token.ALTERED, None)
