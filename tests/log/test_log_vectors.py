"""The vectors in tests/vectors/log, replayed as any other implementation would replay them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from ledger.core import merkle
from ledger.core.checkpoint import parse_and_verify
from ledger.core.errors import EvidenceInvalid

VECTORS = Path(__file__).parents[1] / "vectors"
FILES = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted((VECTORS / "log").glob("*.json"))}
CASES = [pytest.param(name, case, id=f"{name}: {case['name']}") for name, cases in FILES.items() for case in cases]


def replay(name: str, case: dict[str, Any]) -> None:
    match name:
        case "inclusion.json":
            path = [bytes.fromhex(node) for node in case["path"]]
            leaf, root = bytes.fromhex(case["leaf"]), bytes.fromhex(case["root"])
            merkle.verify_inclusion(leaf, case["index"], case["size"], path, root)
        case "consistency.json":
            path = [bytes.fromhex(node) for node in case["path"]]
            roots = bytes.fromhex(case["old_root"]), bytes.fromhex(case["new_root"])
            merkle.verify_consistency(case["old_size"], roots[0], case["new_size"], roots[1], path)
        case "checkpoint.json":
            found = parse_and_verify(case["note"], case["origin"], bytes.fromhex(case["public_key"]))
            assert (found.size, found.root.hex()) == (case["size"], case["root"])
        case _:
            raise ValueError(name)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_a_vector_is_judged_as_it_expects(name: str, case: dict[str, Any]) -> None:
    if case["expect"] == "ok":
        replay(name, case)
        return
    with pytest.raises(EvidenceInvalid) as caught:
        replay(name, case)
    assert caught.value.step == case["expect"]


def test_the_files_are_what_the_generator_makes() -> None:
    made = runpy.run_path(str(VECTORS / "make_log.py"))["vectors"]()
    assert json.loads(json.dumps(made)) == FILES
    for cases in made.values():
        assert {"ok"} < {case["expect"] for case in cases}
        assert len({case["name"] for case in cases}) == len(cases)
