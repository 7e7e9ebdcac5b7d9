"""The vectors of records, commitments and verdicts, replayed; and their makers still make vectors that hold."""

import json
from pathlib import Path

import pytest

from ledger.core import content, evidence, trust
from ledger.core.contracts import KeyState
from ledger.core.custody import Statement
from ledger.core.errors import EvidenceInvalid
from ledger.core.pixels import PixelDigest
from ledger.core.records import TYPES, CustodyRecord, Role
from ledger.core.strict import from_b64
from ledger.core.trust import Facts
from ledger.core.typeddata import Domain
from ledger.core.verdict import CustodyStep, Verdict
from ledger.core.verify import Evidence, Subject, not_checked, verify
from tests.vectors import make_bundles

VECTORS = Path(__file__).parent / "vectors"
FILES = {name: json.loads((VECTORS / f"{name}.json").read_text()) for name in make_bundles.FILES}


def octets(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def facts_of(given: dict) -> Facts:
    keys = {
        octets(key): KeyState(octets(state["certificate"]), *(state[name] for name in TIMES), Role(state["roles"]))
        for key, state in given["keys"].items()
    }
    devices = {octets(device): since for device, since in given["devices"].items()}
    blocks = {int(number): octets(block_hash) for number, block_hash in given["blocks"].items()}
    return Facts(blocks, given["settled"], keys, devices)


TIMES = ("enrolled_at", "retired_at", "compromised_since")


def verdict_of(case: dict, cases: list[dict]) -> Verdict:
    digests = {
        profile: PixelDigest(profile, octets(text.partition(":")[2])) for profile, text in case["subject"]["digests"].items()
    }
    subject = Subject(case["subject"]["attributes"], digests, case["subject"]["refusals"])
    # {"of": a case's name}: what that case has.
    held = {one["name"]: one for one in cases}
    bundle, trusted = (part if isinstance(part := case[name], str) else held[part["of"]][name] for name in ("bundle", "trust"))
    try:
        parsed = evidence.parse(bundle.encode())
    except EvidenceInvalid as error:
        return not_checked(str(error))
    return verify(subject, Evidence([parsed], trust.parse(trusted), facts_of(case["facts"])))


def trail(verdict: Verdict) -> list[list[str | None]]:
    """The steps after the image's own record, as a vector has them: [action or type, finding]."""

    def what(step: CustodyStep) -> str:
        return "Approval" if step.action == "approved" else step.action

    own = [step.record_id for step in verdict.custody].index(verdict.record_id) if verdict.custody else 0
    return [[what(step), step.finding] for step in verdict.custody[own + 1 :]]


def replay(name: str, case: dict, cases: list[dict]) -> None:
    if name.startswith("bundles/"):
        verdict = verdict_of(case, cases)
        found = {
            "verdict": str(verdict.token),
            "exit_code": verdict.exit_code,
            "differing": list(verdict.differing),
            "custody": trail(verdict),
        }
        assert {field: found[field] for field in case["expect"]} == case["expect"], verdict.reasons
    elif name == "records/records":
        fields = {field: shown(value) for field, value in case["record"].items()}
        record = TYPES[fields.pop("type")](**fields)
        assert record.encoded() == octets(case["encoded"])
        assert record.id(Domain(case["chain_id"], octets(case["verifying_contract"]))) == octets(case["record_id"])
    elif name == "records/statements":
        head = bytes(32), "", bytes(32), 0, bytes(32), 0, 0, bytes(32)
        record = CustodyRecord(*head, tuple(map(octets, case["parents"])), case["action"], case["statement"])
        try:
            statement = Statement.of(record)
            allowed = [item for item in content.ITEMS if item in statement.allowed]
            stated = {"changed": " ".join(statement.changed), "allowed": " ".join(allowed)}
        except EvidenceInvalid as error:
            stated = error.step
        assert stated == case["expect"]
    else:
        secret = octets(case["study_secret"])
        names = case["values"]["PixelData"], case["values"]["SOPInstanceUID"]
        kept = {}
        if "parent" in case:
            key = content.derived_key(secret, octets(case["parent"]), case["values"])
            theirs = content.Salts(from_b64(case["parent_image_key"]))
            kept = {item: theirs.salt(item) for item in content.ITEMS if item not in case["changed"]}
        else:
            key = content.image_key(secret, *names)
        sealed = content.commit(case["values"], content.Salts(key, kept))
        assert (key, content.find_key(secret)) == (from_b64(case["image_key"]), from_b64(case["find_key"]))
        assert (b"".join(sealed.leaves), sealed.root) == (from_b64(case["leaves"]), octets(case["root"]))
        assert b"".join(kept.values()) == from_b64(case.get("kept", ""))


def shown(value: object) -> object:
    """The bytes of each `0x...` in a record's member."""
    if isinstance(value, list):
        return tuple(map(shown, value))
    return octets(value) if isinstance(value, str) and value.startswith("0x") else value


@pytest.mark.parametrize(
    ("name", "case"),
    [pytest.param(name, case, id=f"{name}-{case['name']}") for name, cases in FILES.items() for case in cases],
)
def test_a_vector_gives_what_it_expects(name, case):
    replay(name, case, FILES[name])


def test_the_makers_make_vectors_that_hold_under_the_same_names():
    made = make_bundles.vectors()
    assert {name: [case["name"] for case in cases] for name, cases in made.items()} == {
        name: [case["name"] for case in cases] for name, cases in FILES.items()
    }
    for name, cases in made.items():
        for case in cases:
            replay(name, case, cases)
