"""The vectors of records, commitments and verdicts, replayed; and their makers still make vectors that hold."""

import json
from pathlib import Path

import pytest

from ledger.core import content, evidence, trust
from ledger.core.contracts import KeyState
from ledger.core.errors import EvidenceInvalid
from ledger.core.strict import from_b64
from ledger.core.pixels import PixelDigest
from ledger.core.records import AcquisitionRecord, Role
from ledger.core.trust import Facts
from ledger.core.typeddata import Domain
from ledger.core.verdict import Verdict
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


def verdict_of(case: dict) -> Verdict:
    digests = {
        profile: PixelDigest(profile, octets(text.partition(":")[2])) for profile, text in case["subject"]["digests"].items()
    }
    subject = Subject(case["subject"]["attributes"], digests, case["subject"]["refusals"])
    try:
        bundle = evidence.parse(case["bundle"].encode())
    except EvidenceInvalid as error:
        return not_checked(str(error))
    return verify(subject, Evidence([bundle], trust.parse(case["trust"]), facts_of(case["facts"])))


def replay(name: str, case: dict) -> None:
    if name == "bundles/verdicts":
        verdict = verdict_of(case)
        assert (str(verdict.token), verdict.exit_code) == (case["expect"]["verdict"], case["expect"]["exit_code"]), (
            verdict.reasons
        )
    elif name == "records/records":
        fields = {
            field: octets(value) if isinstance(value, str) and value.startswith("0x") else value
            for field, value in case["record"].items()
        }
        record = AcquisitionRecord(**fields)
        assert record.encoded() == octets(case["encoded"])
        assert record.id(Domain(case["chain_id"], octets(case["verifying_contract"]))) == octets(case["record_id"])
    else:
        secret = octets(case["study_secret"])
        key = content.image_key(secret, case["values"]["PixelData"], case["values"]["SOPInstanceUID"])
        sealed = content.commit(case["values"], content.Salts(key))
        assert (key, content.find_key(secret)) == (from_b64(case["image_key"]), from_b64(case["find_key"]))
        assert (b"".join(sealed.leaves), sealed.root) == (from_b64(case["leaves"]), octets(case["root"]))


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, cases in FILES.items() for case in cases], ids=lambda value: str(value)[:60]
)
def test_a_vector_gives_what_it_expects(name, case):
    replay(name, case)


def test_the_makers_make_vectors_that_hold_under_the_same_names():
    made = make_bundles.vectors()
    assert {name: [case["name"] for case in cases] for name, cases in made.items()} == {
        name: [case["name"] for case in cases] for name, cases in FILES.items()
    }
    for name, cases in made.items():
        for case in cases:
            replay(name, case)
