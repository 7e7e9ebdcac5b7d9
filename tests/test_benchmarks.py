"""Each benchmark runs, on sizes that say nothing, and prints what it measured: so that none rots."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import agent, audit, bundles, files, gas, node, peers, rounds, seal_verify
from benchmarks.trial import Trial
from ledger.chain.devnet import find_binary
from ledger.dicom import read

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    "--ct",
    "3",
    "--cr",
    "2",
    "--ct-edge",
    "16",
    "--cr-edge",
    "16",
    "--rounds",
    "1",
    "--peer-rounds",
    "1",
    "--peer-files",
    "2",
]


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_sealing_and_verifying_are_measured_with_both_curves_beside_the_floor(capsys):
    seal_verify.main([*SMALL, "--peer-files", "0", "--json"])
    measured = printed(capsys)["images"]
    names = ["floor", "seal secp256k1", "verify secp256k1", "seal p256", "verify p256"]
    assert list(measured["CT"]["measured"]) == list(measured["CR"]["measured"]) == names
    assert all(row["images_per_s"] > 0 for one in measured.values() for row in one["measured"].values())


def test_a_peer_that_is_missing_is_named_and_the_rest_goes_on(capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    seal_verify.main([*SMALL, "--cr", "0", "--c2pa-python", "/nowhere/python"])
    said = capsys.readouterr().out
    assert "left out: dcmsign is not installed: apt-get install dcmtk" in said
    assert "left out: /nowhere/python could not be started" in said
    assert "seal p256" in said


def test_dcmsign_signs_and_verifies_the_same_files(capsys):
    if shutil.which("dcmsign") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("dcmsign is missing: apt-get install dcmtk")
        pytest.skip("dcmsign is missing: apt-get install dcmtk")
    seal_verify.main([*SMALL, "--ct", "0"])
    said = capsys.readouterr().out
    assert "CR, dcmsign 3." in said
    assert "verify, without process start" in said


def test_the_worker_says_what_its_python_lacks(tmp_path):
    worker = ROOT / "benchmarks" / "c2pa_worker.py"
    asked = [sys.executable, "-S", "-P", str(worker), str(tmp_path)]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert "missing" in json.loads(said)
    with pytest.raises(peers.Missing, match="pip install c2pa-health-imaging"):
        peers.C2pa(tmp_path / "c2pa", str(_python_without_packages(tmp_path)))


def _python_without_packages(folder: Path) -> Path:
    bare = folder / "bare"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o700)
    return bare


def test_bundles_are_measured_in_size_and_time(capsys):
    arguments = ["--sizes", "1", "3", "--samples", "5", "--cold", "1", "--studies", "2"]
    bundles.main([*arguments, "--json"])
    result = printed(capsys)
    assert list(result["bundles"]) == ["1", "3"]
    assert result["bundles"]["3"]["bytes_an_image_with_tiles"] > result["bundles"]["3"]["bytes_an_image"] > 2000
    assert result["verify"]["p256"]["warm_ms"]["p50"] > 0
    bundles.main(arguments)
    assert "goal 2 ms" in capsys.readouterr().out


def test_gas_is_measured_on_old_and_new_rules(capsys):
    if find_binary("anvil", [ROOT]) is None:
        if os.environ.get("CI") == "true":
            pytest.fail("anvil is missing: run `npm ci` in the repository's root")
        pytest.skip("anvil is missing: run `npm ci` in the repository's root")
    for hardfork in ("osaka", "paris"):
        gas.main(["--batches", "1024", "--hardfork", hardfork, "--json"])
        batch = printed(capsys)["batches"]["1024"]
        assert batch["gas_an_image"] <= gas.GOAL_GAS, hardfork
        assert batch["gas_an_image"] == batch["gas"] / 1024


def test_the_agent_is_measured_beside_sending_straight_to_the_same_pacs(capsys):
    agent.main(["--ct", "6", "--cr", "2", "--rounds", "1", "--singles", "3", "--json"])
    measured = json.loads(capsys.readouterr().out)
    for modality, count in (("CT", 6), ("CR", 2)):
        assert measured[modality]["images"] == count
        assert measured[modality]["ratio"]["median"] > 0
    assert measured["latency"]["answer_ms"].keys() == {"direct", "through"}
    assert measured["sealed"]["sealed"] >= 8


def test_a_log_node_is_measured_and_has_each_record_once(capsys):
    if find_binary("anvil", [ROOT]) is None:
        if os.environ.get("CI") == "true":
            pytest.fail("anvil is missing: run `npm ci` in the repository's root")
        pytest.skip("anvil is missing: run `npm ci` in the repository's root")
    node.main(["--agents", "2", "--records", "40", "--batches", "8", "--json"])
    measured = printed(capsys)["requests_of"]["8"]
    assert measured["records"] == 40
    assert measured["per_s"] > 0
    assert 0 <= measured["provable_after_ms"]["p50"] <= measured["provable_after_ms"]["p99"]
    assert measured["limit"]["signature_checks_per_s_and_core"].keys() == {"secp256k1", "p256"}
    assert measured["limit"]["synced_writes"]["records_per_s"] > 0


def test_an_audit_is_measured_and_finds_exactly_what_was_done(capsys):
    arguments = ["--images", "300", "--per-visit", "25", "--faults", "5"]
    audit.main([*arguments, "--json"])
    result = printed(capsys)
    assert (result["images"], result["derived"]) == (300, 150)
    first, again, faults = result["runs"].values()
    assert (first["verdict"], again["verdict"], faults["verdict"]) == ("COMPLETE", "COMPLETE", "UNEXPECTED")
    assert faults["findings"] == {"image_not_in_order": 5, "missing_image": 5, "unexpected_image": 5}
    assert all(0 < run["peak_memory"] < audit.MEMORY_GOAL for run in result["runs"].values())


def test_an_audit_of_images_in_no_order_is_measured_and_a_wrong_result_is_no_measurement(capsys, tmp_path):
    folder = tmp_path / "kept"
    audit.main(["--images", "60", "--per-visit", "10", "--faults", "0", "--flat", "--folder", str(folder)])
    assert "memory: goal 500 MB: met" in capsys.readouterr().out
    first, *others = (folder / "images").iterdir()
    assert len(others) == 59
    first.unlink()
    expected = audit.Expected("COMPLETE", Counter(AUTHENTIC=30, DERIVED=30), Counter())
    with pytest.raises(SystemExit, match=r"missing_image.*this is no measurement"):
        audit.audited(Trial(folder, (), 30), tmp_path / "again.sqlite", expected)
    (folder / "transmittal" / "manifest.jsonl").write_bytes(b"")
    with pytest.raises(SystemExit, match=r"the audit failed, code 7: .*manifest"):
        audit.audited(Trial(folder, (), 30), tmp_path / "again.sqlite", expected)
    with pytest.raises(SystemExit, match="--faults 30 is too many"):
        audit.main(["--images", "60", "--faults", "30"])


def test_files_are_the_same_for_the_same_arguments_and_all_distinct(tmp_path):
    first, again = (files.make(tmp_path / name, "CT", 3, 16) for name in ("a", "b"))
    assert [file.path.read_bytes() for file in first] == [file.path.read_bytes() for file in again]
    assert len({read(file.path).digest("px1-sha256").digest for file in first}) == 3
    for file in first:
        assert file.end - file.start == 16 * 16 * 2


def test_ratios_are_of_the_same_round():
    floor, mine = [rounds.Took(1.0, 1.0), rounds.Took(4.0, 2.0)], [rounds.Took(2.0, 3.0), rounds.Took(8.0, 6.0)]
    assert rounds.ratio(mine, floor, "wall") == rounds.Spread(2.0, 2.0, 2.0)
    assert rounds.ratio(mine, floor, "cpu") == rounds.Spread(3.0, 3.0, 3.0)
