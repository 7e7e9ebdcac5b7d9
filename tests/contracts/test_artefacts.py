"""The shipped artefacts: what the sources give, and laid out as the core's constants say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from eth_utils.crypto import keccak

from ledger.core import contracts
from tests.contracts.local_chains import ARTEFACTS, ROOT, artefact

NAMES = ("AnchorLog", "DeviceRegistry")
OPCODES_AFTER_PARIS = {
    0x5F: "PUSH0",
    0x5C: "TLOAD",
    0x5D: "TSTORE",
    0x5E: "MCOPY",
    0x49: "BLOBHASH",
    0x4A: "BLOBBASEFEE",
    0x1E: "CLZ",
}


def build(*arguments: str) -> subprocess.CompletedProcess[str]:
    if not (ROOT / "node_modules" / "solc").exists():
        missing = "npm's solc is missing: run `npm ci` in the repository's root"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    command = [sys.executable, str(ROOT / "scripts" / "build_contracts"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_artefacts_are_rebuilt_byte_for_byte() -> None:
    answer = build("--check")
    assert answer.returncode == 0, answer.stderr


def test_a_changed_artefact_is_named_with_its_field(tmp_path: Path) -> None:
    for name in NAMES:
        shutil.copy(ARTEFACTS / f"{name}.json", tmp_path)
    changed = {**artefact("AnchorLog"), "deployedBytecode": "0x00"}
    (tmp_path / "AnchorLog.json").write_text(json.dumps(changed), encoding="utf-8")
    (tmp_path / "DeviceRegistry.json").unlink()
    answer = build("--check", "--folder", str(tmp_path))
    assert answer.returncode == 1
    assert "differs in deployedBytecode" in answer.stderr
    assert "DeviceRegistry.json is missing" in answer.stderr


def test_the_slots_are_those_of_the_core() -> None:
    slots = {
        name: {row["label"]: (row["slot"], row["offset"]) for row in artefact(name)["storageLayout"]["variables"]}
        for name in NAMES
    }
    assert slots["AnchorLog"]["anchors"] == (contracts.ANCHORS_SLOT, 0)
    assert slots["DeviceRegistry"]["keys"] == (contracts.KEYS_SLOT, 0)
    assert slots["DeviceRegistry"]["sealsEverythingSince"] == (contracts.SEALS_EVERYTHING_SLOT, 0)


def test_a_key_is_packed_from_the_low_end_in_the_order_of_the_format() -> None:
    members = artefact("DeviceRegistry")["storageLayout"]["structs"]["struct IDeviceRegistry.Key"]
    assert [(row["label"], row["type"], row["slot"], row["offset"]) for row in members] == [
        ("certificate", "bytes32", 0, 0),
        ("enrolledAt", "uint48", 1, 0),
        ("retiredAt", "uint48", 1, 6),
        ("compromisedSince", "uint48", 1, 12),
        ("roles", "uint8", 1, 18),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_code_hash_is_that_of_the_deployed_code(name: str) -> None:
    built = artefact(name)
    assert built["codeHash"] == "0x" + keccak(hexstr=built["deployedBytecode"]).hex()
    assert built["bytecode"].endswith(built["deployedBytecode"][2:])


@pytest.mark.parametrize("name", NAMES)
def test_the_code_has_no_opcode_younger_than_paris(name: str) -> None:
    code, at, found = bytes.fromhex(artefact(name)["bytecode"][2:]), 0, set()
    while at < len(code):
        found.add(code[at])
        at += 1 + (code[at] - 0x5F if 0x60 <= code[at] <= 0x7F else 0)
    assert not found & OPCODES_AFTER_PARIS.keys()


@pytest.mark.parametrize("name", NAMES)
def test_an_artefact_names_no_machine(name: str) -> None:
    text = (ARTEFACTS / f"{name}.json").read_text(encoding="utf-8")
    assert str(ROOT) not in text
    assert str(Path.home()) + "/" not in text
