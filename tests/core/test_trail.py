"""What happened to an image since: each step in order, or with the first thing wrong with it; never a word on the image."""

from dataclasses import replace

import pytest

from ledger.core.custody import Statement, transferred
from ledger.core.evidence import Entry, RecordEntry, Seal
from ledger.core.records import Role
from ledger.core.trust import KeyNotice
from ledger.core.verdict import Token, Verdict
from ledger.core.verify import Evidence, verify
from tests.core.conftest import make_subject
from tests.simulators.ledger import START, World
from tests.simulators.site import DEIDENTIFY, NOBODY, Site, derived, made_of, shown, signed_again

STORED = Statement("stored")
RECEIVED = Statement("received")


class Trail(Site):
    """An image in custody: `verdict_with` is the image's verdict with these steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.clinic, _ = self.newcomer(Role.HOLD, "PACS")
        self.reader, _ = self.newcomer(Role.READ, "WS")
        self.ada, _ = self.newcomer(Role.APPROVE, person="Dr. Ada Müller")
        self.image: Seal = self.seal(self.original)

    def verdict_with(self, *steps: Entry, **trust: object) -> Verdict:
        bundle = self.anchored([self.image], records=[one for one in steps if isinstance(one, RecordEntry)])
        verdict = verify(self.original, Evidence([bundle], self.trust(8, **trust)))
        assert verdict.token is Token.AUTHENTIC, "no step changes the image's verdict"
        return verdict

    def findings(self, *steps: Entry, **trust: object) -> list[tuple[str, str | None]]:
        return [(step.action, step.finding) for step in self.verdict_with(*steps, **trust).custody[1:]]


@pytest.fixture
def site() -> Trail:
    return Trail()


def test_a_trail_in_order_has_no_finding(site):
    sent = site.step(site.image, transferred(site.cro.key), signer=site.clinic)
    got = site.step(sent, RECEIVED, signer=site.cro)
    kept = site.step(got, STORED, signer=site.cro)
    read = site.step(kept, Statement("read"), signer=site.reader)
    signed = site.approve(site.image, "Dr. Ada Müller", "reviewed", signer=site.ada)
    verdict = site.verdict_with(read, signed, kept, sent, got)
    assert [(step.action, step.finding) for step in verdict.custody] == [
        ("acquired", None),
        ("transferred", None),
        ("received", None),
        ("stored", None),
        ("read", None),
        ("approved", None),
    ]
    assert verdict.checks["completeness"].status == "ok"
    assert verdict.custody[-1].meaning == "reviewed"
    assert verdict.custody[-1].by == "Dr. Ada Müller (Test site)"


def test_a_receipt_without_a_transfer_is_a_gap(site):
    assert site.findings(site.step(site.image, RECEIVED, signer=site.cro)) == [("received", "gap")]
    kept = site.step(site.image, STORED, signer=site.clinic)
    got = site.step(kept, RECEIVED, signer=site.cro)
    assert site.findings(kept, got) == [("stored", None), ("received", "gap")]


def test_another_receiver_than_the_named_one_is_a_fork(site):
    sent = site.step(site.image, transferred(site.cro.key), signer=site.clinic)
    assert site.findings(sent, site.step(sent, RECEIVED, signer=site.clinic)) == [("transferred", None), ("received", "fork")]


def test_what_was_received_twice_is_a_fork(site):
    sent = site.step(site.image, transferred(site.cro.key), signer=site.clinic)
    got = [site.step(sent, RECEIVED, signer=site.cro) for _ in range(2)]
    assert site.findings(sent, *got) == [("transferred", None), ("received", "fork"), ("received", "fork")]


@pytest.mark.parametrize("text", ["{}", '{"to":5}', "no JSON", '{"to":"' + "A" * 43 + '","more":1}'])
def test_a_transfer_that_says_nothing_is_a_finding_and_so_is_what_answers_it(site, text):
    """A malformed statement is signed and real: it must not take the image's verdict down with it."""
    sent = site.step(site.image, transferred(site.cro.key), signer=site.clinic, in_log=False)
    sent = sent.model_copy(update=signed_again(site, sent.record.value, site.clinic, statement=text))
    got = site.step(sent, RECEIVED, signer=site.cro)
    assert site.findings(sent, got) == [("transferred", "content"), ("received", "fork")]


@pytest.mark.parametrize(("action", "signer"), [("stored", "reader"), ("read", "cro"), ("stored", "ada"), ("read", "signer")])
def test_a_key_without_the_role_is_a_finding(site, action, signer):
    assert site.findings(site.step(site.image, Statement(action), signer=getattr(site, signer))) == [(action, "role")]


def test_a_stolen_key_is_a_finding(site):
    step = site.step(site.image, STORED, signer=site.cro)
    assert site.findings(step, keys=(KeyNotice(key=site.cro.key, compromised_since=START + 50),)) == [("stored", "role")]


def test_an_unknown_action_is_a_finding(site):
    step = site.step(site.image, STORED, signer=site.cro, in_log=False)
    lent = step.model_copy(update=signed_again(site, step.record.value, site.cro, action="lent"))
    # It keeps the content, so it says something of this image; what, no version knows.
    assert [finding for _, finding in site.findings(lent)] == ["role"]


@pytest.mark.parametrize(
    ("claimed", "finding"),
    [(START + 50 + 301, "time"), (START + 31 - 301, "time"), (START + 50 + 300, None), (START + 31, None)],
)
def test_a_time_that_the_blocks_or_the_image_contradict_is_a_finding(site, claimed, finding):
    assert site.findings(site.step(site.image, STORED, signer=site.cro, claimed_time=claimed)) == [("stored", finding)]


def test_a_step_about_another_image_is_a_finding(site):
    step = site.step(site.image, STORED, signer=site.cro, content=b"\5" * 32).model_copy(update={"leaves": None})
    assert site.findings(step) == [("stored", "content")]


def test_a_statement_with_more_than_belongs_there_is_a_finding(site):
    step = site.step(site.image, STORED, signer=site.cro, in_log=False)
    more = step.model_copy(update=signed_again(site, step.record.value, site.cro, statement='{"more":1}'))
    assert site.findings(more) == [("stored", "content")]


@pytest.mark.parametrize("name", ["Dr. Eve Müller", "dr. ada müller", "", "Dr. Ada Müller "])
def test_an_approval_in_another_name_is_a_finding(site, name):
    assert site.findings(site.approve(site.image, name, "approved", signer=site.ada)) == [("approved", "role")]


def test_an_approval_by_a_machine_or_without_the_role_is_a_finding(site):
    machine, _ = site.newcomer(Role.APPROVE, "ROBOT")
    assert site.findings(site.approve(site.image, "ROBOT", "approved", signer=machine)) == [("approved", "role")]
    person, _ = site.newcomer(Role.READ, person="Eve")
    assert site.findings(site.approve(site.image, "Eve", "approved", signer=person)) == [("approved", "role")]


def test_an_approval_of_another_record_is_not_of_this_image(site):
    other = site.seal(make_subject(5, SOPInstanceUID="1.9"))
    assert site.findings(site.approve(other, "Dr. Ada Müller", "approved", signer=site.ada)) == []


@pytest.mark.parametrize("place", ["signature", "key", "counter", "claimed_time", "content", "leaves", "statement", "index"])
def test_a_damaged_step_is_a_finding(site, place):
    step = site.step(site.image, transferred(site.cro.key), signer=site.clinic)
    step = site.anchored([site.image], records=[step]).records[0]
    record = step.record
    damaged = {
        "signature": {"signature": bytes([step.signature[0] ^ 1]) + step.signature[1:]},
        "key": {"record": record.model_copy(update={"key": bytes(32)})},
        "counter": {"record": record.model_copy(update={"counter": 1})},
        "claimed_time": {"record": record.model_copy(update={"claimed_time": 0})},
        "content": {"record": record.model_copy(update={"content": bytes(32)}), "leaves": None},
        "leaves": {"leaves": bytes(32) + step.leaves[32:]},
        "statement": {"record": record.model_copy(update={"statement": "{}"})},
        "index": {"included": step.included.model_copy(update={"index": step.included.index + 1})},
    }[place]
    damaged = step.model_copy(update=damaged)
    bundle = site.anchored([site.image], records=[])
    verdict = verify(site.original, Evidence([bundle.model_copy(update={"records": (damaged,)})], site.trust(8)))
    assert verdict.token is Token.AUTHENTIC
    assert [(one.action, one.finding) for one in verdict.custody[1:]] == [("transferred", "role")]
    assert verdict.checks["completeness"].status == "failed"


def test_a_step_whose_record_before_is_not_there_is_a_gap(site):
    sent = site.step(site.image, transferred(site.cro.key), signer=site.clinic)
    got = site.step(sent, RECEIVED, signer=site.cro)
    assert site.findings(got) == [("received", "gap")]
    stranger = got.model_copy(update={"signature": bytes(63) + b"\1"})
    assert site.findings(stranger) == [("received", "role")]


def test_a_step_of_another_image_that_lost_its_record_before_is_none_of_this_ones(site):
    other = site.seal(make_subject(5, SOPInstanceUID="1.9"))
    sent = site.step(other, transferred(site.cro.key), signer=site.clinic)
    assert site.findings(site.step(sent, RECEIVED, signer=site.cro)) == []


def test_what_follows_a_step_that_proves_nothing_is_not_looked_at(site):
    step = site.step(site.image, STORED, signer=site.cro)
    after = site.step(step, STORED, signer=site.cro)
    forged = step.model_copy(update={"signature": bytes(63) + b"\1"})
    assert site.findings(forged, after) == [("stored", "role")]


def test_what_follows_a_step_by_a_refused_key_is_looked_at(site):
    step = site.step(site.image, STORED, signer=site.reader)
    after = site.step(step, STORED, signer=site.cro)
    assert site.findings(step, after) == [("stored", "role"), ("stored", None)]


@pytest.mark.parametrize(("count", "found"), [(63, []), (64, ["gap"]), (80, ["gap"])])
def test_a_trail_that_is_too_long_says_so(site, count, found):
    """Who may hold cannot hide a step behind sixty-three in order."""
    steps: list[RecordEntry] = []
    for _ in range(count):
        steps.append(site.step(steps[-1] if steps else site.image, STORED, signer=site.cro))
    findings = [finding for _, finding in site.findings(*steps)]
    assert len(findings) == min(count, 64)
    assert [finding for finding in findings if finding] == found


def test_images_that_were_made_from_it_are_no_steps_and_take_no_ones_place(site):
    children = [
        site.derive(made_of(site.original, uid=f"1.9.{number}", **NOBODY), site.image, DEIDENTIFY, signer=site.gateway)
        for number in range(70)
    ]
    step = site.step(site.image, STORED, signer=site.cro)
    bad = site.step(step, RECEIVED, signer=site.cro)
    assert site.findings(*shown(*children), step, bad) == [("stored", None), ("received", "gap")]


def test_a_forged_derivation_of_the_same_content_is_a_step_with_a_finding(site):
    made = site.step(site.image, derived("burn-in"), signer=site.cro)
    assert site.findings(made) == [("derived", "role")]


def test_a_trail_is_the_images_own(site):
    """A child's trail is not its parent's, and the other way round."""
    child = made_of(site.original, **NOBODY)
    made = site.derive(child, site.image, DEIDENTIFY, signer=site.gateway)
    of_parent = site.step(site.image, RECEIVED, signer=site.cro)
    of_child = site.step(made, STORED, signer=site.cro)
    records = shown(site.image, of_parent, of_child)
    verdict = site.verdict(child, [made], *records)
    assert verdict.token is Token.DERIVED
    assert [(step.action, step.finding) for step in verdict.custody] == [
        ("acquired", None),
        ("de-identified", None),
        ("stored", None),
    ]


def test_findings_do_not_help_an_image_that_is_altered(site):
    step = site.step(site.image, STORED, signer=site.cro)
    bundle = site.anchored([site.image], records=[step])
    edited = replace(site.original, digests=make_subject(9).digests)
    assert verify(edited, Evidence([bundle], site.trust(8))).token is Token.ALTERED


def test_a_thief_on_the_way_shows_in_the_custody_of_what_is_made_of_it():
    world = World()
    thief, _ = world.newcomer(Role.HOLD | Role.TRANSFORM, "THIEF")
    clinic, _ = world.newcomer(Role.HOLD, "PACS")
    original, child = make_subject(), make_subject(PatientID="S01")
    sealed = world.seal(original)
    sent = world.step(sealed, transferred(clinic.key), signer=clinic)
    stolen = world.step(sent, Statement("received"), signer=thief)
    opened = sealed.model_copy(update={"record": stolen.record, "signature": stolen.signature})
    receipt = Statement("de-identified", {"profile": "ps3.15-basic", "options": [], "changed": ["PatientID"]})
    made = world.derive(child, opened, receipt, signer=thief)
    parents = [RecordEntry(record=one.record, signature=one.signature, leaves=sealed.leaves) for one in (sealed, sent, stolen)]
    verdict = verify(child, Evidence([world.anchored([made], records=parents)], world.trust(8)))
    assert verdict.token is Token.DERIVED
    assert [(step.action, step.finding) for step in verdict.custody] == [
        ("acquired", None),
        ("transferred", None),
        ("received", "fork"),
        ("de-identified", None),
    ]
    assert verdict.checks["completeness"].status == "failed"
