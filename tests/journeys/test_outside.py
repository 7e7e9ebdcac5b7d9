"""The chain misbehaves: re-orgs, lying and failing nodes. Nothing is lost, and no lie becomes a verdict."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from ledger.chain import Endpoint
from ledger.core.verdict import Token, Verdict
from ledger.wiring import assembly
from ledger.wiring import site as sites
from tests.journeys.conftest import Site, copy_test_file
from tests.simulators.rpc import FAILURES, LIES, FaultyNode


@pytest.fixture(scope="module")
def faulty(site: Site) -> Iterator[FaultyNode]:
    with FaultyNode(f"http://127.0.0.1:{site.port}") as node:
        yield node


@pytest.fixture(scope="module")
def images(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An intact image, an edited one, and one of another patient."""
    folder = tmp_path_factory.mktemp("received")
    for name in ("intact", "edited", "swapped"):
        (folder / name).mkdir()
        dataset = pydicom.dcmread(site.folder / "made/CT_small.dcm")
        if name == "edited":
            dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]
        if name == "swapped":
            dataset.PatientID = "0815"
        dataset.save_as(folder / name / f"{name}.dcm")
    return folder


def verdicts(site: Site, node: FaultyNode, images: Path, trust: Path) -> dict[str, Verdict]:
    known = sites.read_trust(site.folder / "trust.toml")
    sites.write_trust(trust, known.model_copy(update={"rpc": (node.url,), "blocks": ()}))
    with assembly.verifier(site.folder, trust, [], offline=False) as verifier:
        return {Path(one.path).stem: one.verdict for one in verifier.verify(assembly.images([str(images)]))}


@pytest.mark.parametrize("fault", [None, *LIES, *(failure for failure in FAILURES if failure not in ("hang", "slow", "drop"))])
def test_no_lie_and_no_failure_of_a_node_becomes_a_verdict(
    site: Site, faulty: FaultyNode, images: Path, tmp_path: Path, fault: str | None
):
    faulty.fault = fault
    try:
        found = verdicts(site, faulty, images, tmp_path / "trust.toml")
    finally:
        faulty.fault = None
    truth = {"intact": Token.AUTHENTIC, "edited": Token.ALTERED, "swapped": Token.MISMATCH}
    for name, verdict in found.items():
        is_true = verdict.token is truth[name]
        is_out_of_reach = (verdict.token, verdict.exit_code) == (Token.NOT_CHECKED, 6)
        assert is_true or (fault is not None and is_out_of_reach) or verdict.token is Token.PENDING, (name, verdict)
        assert verdict.token is not Token.PENDING or fault == "stale head"


def test_an_anchor_that_a_reorg_takes_is_anchored_again(own_site: Site, tmp_path: Path):
    first = copy_test_file("CT_small.dcm", tmp_path / "first")
    own_site.run("seal", first, "--device", "ct1")
    taken = own_site.json("anchor", "--wait", "included")
    assert taken["anchors"][0]["state"] == "included"
    node = Endpoint(f"http://127.0.0.1:{own_site.port}")
    node.call("anvil_reorg", 1, [])
    assert own_site.verdicts(first, expect=4) == {"CT_small.dcm": "PENDING"}
    second = copy_test_file("MR_small.dcm", tmp_path / "second")
    own_site.run("seal", second, "--device", "ct1")
    again = own_site.json("anchor")
    assert [row["records"] for row in again["anchors"] if row["state"] == "final"] == [2]
    assert set(own_site.verdicts(tmp_path).values()) == {"AUTHENTIC"}
    assert set(own_site.verdicts(tmp_path, "--offline").values()) == {"AUTHENTIC"}


def test_waiting_for_inclusion_only_is_pending_until_the_next_run(own_site: Site, tmp_path: Path):
    image = copy_test_file("CT_small.dcm", tmp_path)
    own_site.run("seal", image, "--device", "ct1")
    own_site.run("anchor", "--wait", "none")
    assert own_site.verdicts(image, expect=4) == {"CT_small.dcm": "PENDING"}
    own_site.run("anchor")
    assert own_site.verdicts(image) == {"CT_small.dcm": "AUTHENTIC"}


def test_a_folder_that_brings_its_own_site_is_not_believed_unless_it_is_named(site, tmp_path):
    brought = tmp_path / "received"
    (brought / "images").mkdir(parents=True)
    shutil.copy(site.folder / "made/CT_small.dcm", brought / "images")
    for name in ("site.toml", "trust.toml"):
        shutil.copy(site.folder / name, brought)
    stranger = Site(brought, site.port)
    refused = stranger.run("verify", "images", "--offline", env={"SCANSEAL_SITE": ""}, expect=2)
    assert "--site" in refused.stderr
    stranger.run("verify", "images", "--offline", "--site", ".", env={"SCANSEAL_SITE": ""}, expect=3)
    trust = ("--trust", site.folder / "trust.toml")
    stranger.run("verify", "images", "--offline", *trust, env={"SCANSEAL_SITE": ""}, expect=3)
