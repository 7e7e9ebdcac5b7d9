"""Sites hand in to one log node, which anchors for all: as their people do it, with the real server and a real chain."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from tests.agent import modality
from tests.journeys.agents import dicom_source, running, store, until
from tests.journeys.conftest import SCANSEAL, Site, copy_test_file, free_port, make_site


class Node:
    """A site that runs `scanseal serve`."""

    def __init__(self, site: Site) -> None:
        self.site, self.port = site, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.site.folder / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*SCANSEAL, "serve", "--listen", f"127.0.0.1:{self.port}"],
                env=os.environ | {"SCANSEAL_SITE": str(self.site.folder)},
                stderr=log,
            )
        until(self.answers, "the node's answer")

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.site.folder / "serve.log").read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def end(self, number: int = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    made = make_site(tmp_path_factory.mktemp("node") / "node")
    with (made.folder / "site.toml").open("a") as file:
        file.write("\n[anchoring]\ninterval_s = 1\n")
    running = Node(made)
    running.start()
    try:
        yield running
    finally:
        running.end()
        made.run("devnet", "down", expect=None)


def join(node: Node, folder: Path, name: str, *more: object) -> Site:
    """A site of the node with one certified scanner, as its people and the node's operator do it together."""
    folder.mkdir(parents=True)
    token = folder.parent / f"{name}.token"
    token.write_text(node.site.run("node", "client", "add", name).stdout)
    made = Site(folder, node.site.port)
    given = ("--token-file", token, "--trust", node.site.folder / "trust.toml", "--keep-passphrase", *more)
    made.run("init", folder, "--name", name, "--node", node.url, *given)
    named = ("--manufacturer", "Acme", "--model", "CT 3000", "--serial", name, "--ae", "CT1")
    made.run("device", "request", "ct1", *named)
    request = node.site.folder / f"{name}-ct1.csr"
    shutil.copyfile(folder / "devices" / "ct1.csr", request)
    node.site.run("device", "approve", request)
    made.run("device", "adopt", node.site.folder / "devices" / f"{name}-ct1.pem")
    return made


def image(folder: Path, number: int) -> Path:
    path = copy_test_file("CT_small.dcm", folder).rename(folder / f"{number}.dcm")
    dataset = pydicom.dcmread(path)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.8.498.{number}"
    dataset.StudyInstanceUID = f"1.2.826.0.1.3680043.8.498.9.{number}"
    dataset.PixelData = number.to_bytes(2, "little") + dataset.PixelData[2:]
    dataset.save_as(path)
    return path


def test_two_sites_hand_in_and_the_other_one_finds_the_evidence(node: Node, tmp_path: Path) -> None:
    one, other = (join(node, tmp_path / name, name) for name in ("north", "south"))
    assert not any((one.folder / name).exists() for name in ("ca", "keys/log.pem", "keys/account.json"))
    for words in (
        ("approve", "ct1"),
        ("rotate", "ct1", "ct2"),
        ("retire", "ct1"),
        ("revoke", "ct1", "--compromised-since", "now"),
    ):
        assert "looked after at" in one.run("device", *words, expect=2).stderr
    paths = [image(one.folder / "images", number) for number in range(3)]
    own = image(other.folder / "images", 9)
    one.run("seal", *paths, "--device", "ct1")
    other.run("seal", own, "--device", "ct1")
    assert one.verdicts("images", expect=4) == {path.name: "PENDING" for path in paths}

    # The node goes away in the middle, and comes back.
    node.end()
    refused = one.run("anchor", "--timeout", "1", expect=6)
    assert "out of reach" in refused.stderr
    node.start()
    assert one.json("anchor")["sequenced"] == 3
    assert other.json("anchor")["sequenced"] == 1
    for site, count in ((one, 3), (other, 1)):
        assert list(site.verdicts("images").values()) == ["AUTHENTIC"] * count
        assert list(site.verdicts("images", "--offline").values()) == ["AUTHENTIC"] * count, "the block was seen here"
        status = site.json("log", "status")
        assert (status["queued"], status["last_error"], status["alarms"]) == (0, None, [])
        site.run("log", "check")

    # The other site, and somebody with nothing but the trust file, find the evidence at the node.
    sent = tmp_path / "sent"
    sent.mkdir()
    for path in paths:
        shutil.copyfile(path, sent / path.name)
    assert set(other.verdicts(sent).values()) == {"AUTHENTIC"}
    trust = ("--trust", node.site.folder / "trust.toml")
    stranger = Site(tmp_path / "sent", node.site.port)
    env = {"SCANSEAL_SITE": ""}
    asked = stranger.json("verify", sent / "0.dcm", *trust, "--node", node.url, env=env)
    assert asked["verdict"] == "AUTHENTIC"
    assert stranger.json("verify", sent / "0.dcm", *trust, env=env, expect=3)["verdict"] == "UNREGISTERED"
    assert other.json("verify", sent / "0.dcm", "--offline", expect=3)["verdict"] == "UNREGISTERED"
    assert "asks no one" in other.run("verify", sent / "0.dcm", "--offline", "--node", node.url, expect=2).stderr
    assert one.run("bundle", "export", paths[0], "-o", tmp_path / "one.seal.json").returncode == 0
    assert stranger.json("verify", sent / "0.dcm", *trust, "--bundle", tmp_path / "one.seal.json", env=env)["verdict"] == (
        "AUTHENTIC"
    )

    # A de-identified copy has the same pixels, and finds nothing: its holder cannot guess at the patient with it.
    anonymous = pydicom.dcmread(sent / "0.dcm")
    anonymous.PatientName, anonymous.PatientID = "", "A1"
    (tmp_path / "public").mkdir()
    anonymous.save_as(tmp_path / "public" / "0.dcm")
    assert other.json("verify", tmp_path / "public", expect=3)["verdict"] == "UNREGISTERED"

    # An outage is no verdict.
    node.end()
    asked = other.json("verify", sent / "0.dcm", expect=6)
    assert asked["verdict"] == "NOT_CHECKED"
    assert "could not be asked" in asked["images"][0]["reasons"][0]
    assert other.verdicts(own) == {"9.dcm": "AUTHENTIC"}, "what is known here needs no node"
    node.start()

    # What a site redacts is gone from the node.
    uid = str(pydicom.dcmread(paths[1]).StudyInstanceUID)
    one.run("redact", uid, given="yes\n")
    assert set(other.verdicts(sent / "1.dcm").values()) == {"AUTHENTIC"}
    one.run("anchor")
    assert other.verdicts(sent / "1.dcm", expect=3) == {"1.dcm": "UNREGISTERED"}


@pytest.fixture(scope="module")
def site(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return join(node, tmp_path_factory.mktemp("site") / "site", "east")


def test_a_node_that_is_killed_while_a_site_hands_in_loses_nothing_and_has_nothing_twice(node: Node, site: Site) -> None:
    before = _size(node)
    for number in range(2):
        site.run("seal", image(site.folder / "images", 20 + number), "--device", "ct1")
        command = [*SCANSEAL, "anchor", "--wait", "none", "--site", str(site.folder)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            until(lambda at=before + number: _size(node) > at, "the record's place in the log")
            node.end()
        node.start()
    site.run("anchor")
    assert set(site.verdicts("images").values()) == {"AUTHENTIC"}
    assert _size(node) == before + 2
    node.site.run("log", "check")


def _size(node: Node) -> int:
    with urllib.request.urlopen(f"{node.url}/v1/checkpoint", timeout=5) as answer:
        return int(answer.read().split(b"\n")[1])


def test_records_come_into_the_log_while_the_chain_is_down_and_are_final_when_it_is_back(node: Node, site: Site) -> None:
    node.site.run("devnet", "down")
    late = image(site.folder / "images", 31)
    site.run("seal", late, "--device", "ct1")
    until(lambda: site.run("anchor", "--wait", "none", expect=None) and not site.json("log", "status")["queued"], "sequencing")
    assert site.json("verify", late, expect=6)["verdict"] == "NOT_CHECKED", "the chain is asked what is new"
    assert site.verdicts(late, "--offline", expect=4) == {"31.dcm": "PENDING"}
    node.site.run("devnet", "up")
    site.run("anchor")
    assert set(site.verdicts("images").values()) == {"AUTHENTIC"}


def test_two_agents_with_one_key_are_both_told_and_seal_no_more(node: Node, tmp_path: Path) -> None:
    site = join(node, tmp_path / "site", "first")
    twin = Site(tmp_path / "twin", node.site.port)
    shutil.copytree(site.folder, twin.folder)
    for number, one in enumerate((site, twin)):
        one.run("seal", image(one.folder / "images", 40 + number), "--device", "ct1")
    site.run("anchor")
    told = twin.run("anchor", "--timeout", "1", expect=4)
    assert "key held" in twin.run("log", "status").stdout, told.stdout
    site.run("seal", image(site.folder / "images", 42), "--device", "ct1")
    site.run("anchor", "--timeout", "1", expect=4)
    for one in (site, twin):
        refused = one.run("seal", image(one.folder / "images", 43), "--device", "ct1", expect=2)
        assert "two agents sign with this key" in refused.stderr
        assert [alarm["word"] for alarm in one.json("log", "status")["alarms"]] == ["key held"]
    (key,) = [row["key"] for row in node.site.json("node", "keys")["keys"] if row["held"]]
    node.site.run("node", "release", key)
    site.run("anchor")
    assert set(site.verdicts(site.folder / "images" / "40.dcm", site.folder / "images" / "42.dcm").values()) == {"AUTHENTIC"}
    site.run("seal", site.folder / "images" / "43.dcm", "--device", "ct1")


def test_an_agent_hands_in_by_itself_and_stops_sealing_when_another_one_has_its_key(node: Node, tmp_path: Path) -> None:
    site = join(node, tmp_path / "site", "agent")
    twin = Site(tmp_path / "twin", node.site.port)
    shutil.copytree(site.folder, twin.folder)
    port = free_port()
    sent = [modality.image(number, tmp_path / "sent", ("Acme", "CT 3000", "agent")) for number in range(3)]
    with running(site, dicom_source("ct", port).replace('destination = "pacs"', "")) as agent:
        assert store(port, sent[0]).returncode == 0
        until(lambda: set(site.verdicts(sent[0], expect=None).values()) == {"AUTHENTIC"}, "the anchor of a sealed image", 90)
        assert agent.get("/healthz")[0] == 200

        twin.run("seal", image(twin.folder / "images", 69), "--device", "ct1")
        twin.run("anchor", "--timeout", "1", expect=4)
        assert store(port, sent[1]).returncode == 0
        alarms = until(lambda: agent.status()["alarms"], "an alarm", 90)
        assert all("two agents sign with this key" in alarm for alarm in alarms), alarms
        assert agent.get("/healthz")[0] == 503
        until(lambda: agent.status()["seal"].get("sealed") == 2, "the second seal")
        assert store(port, sent[2]).returncode == 0, "images are taken whatever happens to the ledger"
        until(lambda: "seal ct" in agent.status()["troubles"], "the sealing's trouble")
        assert agent.status()["seal"] == {"sealed": 2, "waiting": 1}
        assert agent.end() == 0


def test_a_site_whose_token_was_taken_away_is_told_so_and_loses_nothing(node: Node, site: Site) -> None:
    site.run("seal", image(site.folder / "images", 50), "--device", "ct1")
    node.site.run("node", "client", "remove", "east")
    assert "does not know this site's token" in site.run("anchor", expect=2).stderr
    (site.folder / "node" / "token").write_text(node.site.run("node", "client", "add", "east").stdout)
    site.run("anchor")
    assert set(site.verdicts("images").values()) == {"AUTHENTIC"}
