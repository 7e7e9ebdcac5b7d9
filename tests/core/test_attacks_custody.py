"""Flip one bit anywhere in evidence with a lineage and a trail."""

import copy
import json

import pytest

from ledger.core import evidence, trust
from ledger.core.certificates import parse
from ledger.core.custody import Statement, transferred
from ledger.core.errors import EvidenceInvalid
from ledger.core.evidence import Tiles
from ledger.core.records import Role
from ledger.core.search import Subject
from ledger.core.verdict import Token, Verdict
from ledger.core.verify import Evidence, verify
from tests.core.conftest import make_subject
from tests.core.test_attacks import at, changed, flips, leaves_of
from tests.simulators.site import DEIDENTIFY, NOBODY, Site, derived, made_of, shown


def custody_made(curve: str) -> tuple[dict, trust.Trust, Subject]:
    site = Site(curve)
    reader, _ = site.newcomer(Role.READ, "WS")
    ada, _ = site.newcomer(Role.APPROVE, person="Dr. Ada Müller")
    original = site.seal(site.original)
    other = site.seal(make_subject(4, SOPInstanceUID="1.4"))
    kept = site.step(original, transferred(site.gateway.key), signer=site.cro)
    marked = made_of(site.original, 6, "1.8")
    burnt = site.derive(
        marked,
        original,
        derived("secondary-capture", "PixelData", "SOPInstanceUID"),
        signer=site.gateway,
        parents=(kept.record.value.id(site.domain), other.record.value.id(site.domain)),
    )
    child = made_of(marked, **NOBODY)
    made = site.derive(child, burnt, DEIDENTIFY, signer=site.gateway)
    made = made.model_copy(update={"tiles": Tiles.of(child.digests["px1-sha256"])})
    sent = site.step(made, transferred(site.cro.key), signer=site.cro)
    got = site.step(sent, Statement("received", {"tool": "scanseal 1"}), signer=site.cro)
    trail = [
        sent,
        got,
        site.step(got, Statement("read"), signer=reader),
        site.approve(made, "Dr. Ada Müller", "seen", signer=ada),
    ]
    bundle = site.anchored([made], records=shown(original, other, kept, burnt, *trail))
    # Steps open nothing, and here nothing is compared with them.
    records = tuple(one.model_copy(update={"leaves": None}) if at >= LINEAGE else one for at, one in enumerate(bundle.records))
    needed = tuple(der for der in bundle.certificates if parse(der).key != site.maker.key)
    bundle = bundle.model_copy(update={"records": records, "certificates": needed})
    return json.loads(evidence.write(bundle)), site.trust(8), child


LINEAGE = 4
"""So many of the bundle's records are the lineage's; what follows is the trail."""
CUSTODY = {curve: custody_made(curve) for curve in ("secp256k1", "p256")}


def judged(curve: str, bundle: dict) -> Verdict | None:
    _, believed, child = CUSTODY[curve]
    try:
        parsed = evidence.parse(json.dumps(bundle).encode("utf-8", "surrogateescape"))
    except (EvidenceInvalid, UnicodeEncodeError):
        return None
    return verify(child, Evidence([parsed], believed))


@pytest.mark.parametrize("curve", CUSTODY)
def test_the_custody_that_the_attacks_start_from_is_in_order(curve):
    verdict = judged(curve, CUSTODY[curve][0])
    assert verdict.token is Token.DERIVED
    assert not any(step.finding for step in verdict.custody)
    assert len(verdict.custody) == 1 + 4 + 4


PLACES_OF_CUSTODY = [
    (curve, path) for curve, (bundle, _, _) in CUSTODY.items() for path in leaves_of(bundle) if path[:1] != ("states",)
]


@pytest.mark.parametrize(
    ("curve", "path"), PLACES_OF_CUSTODY, ids=lambda one: one if isinstance(one, str) else ".".join(map(str, one))
)
def test_a_bit_flipped_anywhere_in_custody_is_never_overlooked(curve, path):
    """A flipped bit in the lineage, or in what all records share, proves nothing and accuses nobody. In the trail it leaves the
    image its verdict (decision 002) and is a finding, but where it cuts an approval off from what it approves: that shows as
    little as an approval that was left out."""
    bundle, _, _ = CUSTODY[curve]
    value = at(bundle, path)
    is_trail = path[0] == "records" and path[1] >= LINEAGE
    is_approval = is_trail and bundle["records"][path[1]]["record"]["type"] == "Approval"
    for flipped in flips(value, 24):
        verdict = judged(curve, changed(bundle, path, flipped))
        if verdict is None or verdict.token is Token.NOT_CHECKED:
            continue
        if is_trail:
            assert verdict.token is Token.DERIVED
            cut_off = is_approval and path[-1] == "content"
            assert cut_off or any(step.finding for step in verdict.custody), path
        elif verdict.token is Token.DERIVED:
            # The certificate of one who signed a step of the trail alone.
            assert path[0] == "certificates", path
            assert any(step.finding for step in verdict.custody), path
        else:
            assert verdict.token is Token.REVOKED, path
            assert path[0] == "certificates", path


MEMBERS = [path for path in leaves_of(CUSTODY["p256"][0]) if path[0] != "states"]
"""How many nodes a state has is chance."""


@pytest.mark.parametrize("path", MEMBERS, ids=lambda path: ".".join(map(str, path)))
def test_a_member_missing_from_custody_is_never_overlooked(path):
    bundle, _, _ = CUSTODY["p256"]
    if isinstance(path[-1], int) and path[0] == "headers":
        return
    copied = copy.deepcopy(bundle)
    del at(copied, path[:-1])[path[-1]]
    verdict = judged("p256", copied)
    if verdict is not None and verdict.token is not Token.NOT_CHECKED:
        # Certificates, proofs and times of the trail's records alone; a record that is not anchored any more is pending.
        assert verdict.token in (Token.DERIVED, Token.PENDING, Token.UNREGISTERED), path
        # Leaves may be left out where no child's are compared with them.
        if verdict.token is Token.DERIVED and "included" not in path and path[-1] != "leaves":
            assert any(step.finding for step in verdict.custody), path
