"""The agent under faults, with real components: after each, when all is up again, the count closes (tests/agent/closing.py).

One site, one Orthanc and one agent for the whole table: each case finds what the one before has left, and may find no fault
in it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.agent.closing import InOrthanc, close
from tests.agent.crashing import Mortal
from tests.agent.hostile import Hostile, request
from tests.agent.modality import Modality, data_set, digest, image, instance
from tests.journeys.agents import destination, dicom_source, until
from tests.journeys.conftest import Site, add_device, free_port, make_site
from tests.journeys.orthanc import Orthanc, orthanc

PER_CASE = 3
ROOT = Path(__file__).resolve().parents[2]
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@dataclass
class Hospital:
    """A site with a modality, a folder, an Orthanc and an agent between them."""

    site: Site
    agent: Mortal
    modality: Modality
    pacs: Orthanc
    in_pacs: InOrthanc
    folder: Path
    made: int = 0
    sent: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    def images(self, count: int = PER_CASE) -> list[Path]:
        """New ones, of which the site may now have all."""
        paths = [image(self.made + number, self.site.folder / "images") for number in range(count)]
        self.made += count
        self.sent |= {instance(path): digest(data_set(path)) for path in paths}
        return paths

    def export(self, *paths: Path) -> None:
        """Into the watched folder, as a modality does: written under another name first."""
        for path in paths:
            part = self.folder / f".{path.name}"
            part.write_bytes(path.read_bytes())
            part.replace(self.folder / path.name)
            self.taken.add(instance(path))

    def close(self, **more: Any) -> None:
        self.taken |= self.modality.taken()
        close(self.site.folder, self.in_pacs, self.sent, self.taken, **more)


def settings(folder: Path, port: int, pacs: Orthanc) -> str:
    return f"""
[spool]
keep_s = 0
min_free_mb = 1

[[source]]
kind = "folder"
name = "export"
role = "acquire"
device = "ct1"
path = "{folder / "export"}"
settle_s = 0.2
remove = true
destination = "pacs"

[[source]]
kind = "orthanc"
name = "archive"
role = "acquire"
device = "ct1"
url = "{pacs.url}"
poll_s = 0.2
allow = [{{ ae_title = "CT2", address = "127.0.0.1" }}]
{dicom_source("ct", port)}{destination(pacs)}"""


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    site = make_site(tmp_path_factory.mktemp("hospital"))
    with (site.folder / "site.toml").open("a") as file:
        file.write("\n[anchoring]\ninterval_s = 2\n")
    try:
        add_device(site, "ct1", "secp256k1", "4711")
        (site.folder / "export").mkdir()
        with orthanc(site.folder / "orthanc") as pacs:
            port = free_port()
            agent = Mortal(site)
            agent.configure(settings(site.folder, port, pacs))
            agent.start()
            try:
                yield Hospital(site, agent, Modality(port), pacs, InOrthanc(pacs), site.folder / "export")
            finally:
                agent.kill()
    finally:
        site.run("devnet", "down", expect=None)


# ---- killed at each numbered step -----------------------------------------------------------------------------------

WITH_EACH_SOURCE = ("received", "synced", "renamed", "in the folder", "noted")
OF_WORKERS = ("before sending", "taken by the PACS", "noted as sent", "sealed", "noted as sealed")
GROUP = [*WITH_EACH_SOURCE, "answered", *OF_WORKERS, "finished", "removed"]
ALONE = ["in the folder", "answered", *OF_WORKERS, "removed"]
CASES = [(step, "group") for step in GROUP] + [(step, "process") for step in ALONE]


@pytest.mark.parametrize(("step", "scope"), CASES, ids=[f"{step}-{scope}" for step, scope in CASES])
def test_killed_at_a_step_nothing_is_lost_and_nothing_done_twice(hospital: Hospital, step: str, scope: str) -> None:
    agent, images = hospital.agent, hospital.images()
    agent.start_if_down()
    agent.arm(step, scope, calls=2 if step in WITH_EACH_SOURCE else 1)
    hospital.modality.send(*images)
    until(lambda: not agent.armed.exists(), f"the step {step!r}")
    if step not in OF_WORKERS or scope == "group":
        until(agent.is_down, "the end of the agent")
    agent.start_if_down()
    hospital.modality.send_until_taken(*images)
    hospital.close()


@pytest.mark.parametrize("step", ["renamed", "noted"])
def test_killed_while_a_folder_is_taken(hospital: Hospital, step: str) -> None:
    agent, images = hospital.agent, hospital.images()
    agent.start_if_down()
    agent.arm(step, "group", calls=2)
    hospital.export(*images)
    until(agent.is_down, "the end of the agent")
    agent.start()
    hospital.close()
    assert not list(hospital.folder.iterdir())


@pytest.mark.parametrize("step", ["renamed", "noted", "place noted"])
def test_killed_while_an_orthanc_is_polled(hospital: Hospital, step: str) -> None:
    agent, images = hospital.agent, hospital.images()
    agent.start_if_down()
    agent.arm(step, "group")
    scanner = Modality(hospital.pacs.dicom_port, "CT2", "ORTHANC")
    scanner.send(*images)
    hospital.taken |= scanner.taken()
    until(agent.is_down, "the end of the agent")
    agent.start()
    hospital.close()


def chain_pid(site: Site) -> int:
    return int(json.loads((site.folder / "devnet" / "devnet.json").read_text())["pid"])


# ---- peers and parts that fail ----------------------------------------------------------------------------------------


def test_two_hundred_hostile_peers_keep_nothing_from_the_honest_one(hospital: Hospital) -> None:
    hospital.agent.start_if_down()
    said = (b"", b"GET / HTTP/1.1\r\n\r\n", request()[:70], request(calling=b"CT9"))
    peers = [Hostile(hospital.modality.port).send(said[number % len(said)]) for number in range(200)]
    images = hospital.images()
    hospital.modality.send_until_taken(*images)
    hospital.close()
    for one in peers:
        one.close()


@pytest.mark.parametrize("what", ["the PACS", "the chain"])
def test_what_is_stopped_holds_up_no_modality_and_gets_all_when_it_goes_on(hospital: Hospital, what: str) -> None:
    """A process that is stopped takes connections and answers nothing: a hanging PACS, a hanging RPC."""
    hospital.agent.start_if_down()
    pid = hospital.pacs.pid if what == "the PACS" else chain_pid(hospital.site)
    images = hospital.images()
    os.kill(pid, signal.SIGSTOP)
    try:
        hospital.modality.send_until_taken(*images, patience_s=30.0)
        assert {hospital.modality.told[instance(path)][0] for path in images} == {0}, "taken at the first time"
    finally:
        os.kill(pid, signal.SIGCONT)
    hospital.close(patience_s=120.0)


def test_a_clock_that_is_two_hours_off_loses_nothing_and_is_told(hospital: Hospital) -> None:
    if FAKETIME is None:
        if os.environ.get("CI"):
            pytest.fail("libfaketime is missing")
        pytest.skip("libfaketime is missing: apt-get install libfaketime")
    hospital.agent.start_if_down()
    hospital.agent.kill()
    images = hospital.images()
    hospital.agent.start(LD_PRELOAD=str(FAKETIME), FAKETIME="-2h", FAKETIME_DONT_FAKE_MONOTONIC="1")
    hospital.modality.send_until_taken(*images)
    hospital.close()
    until(lambda: 7000 < (hospital.agent.status()["clock_behind_s"] or 0) < 7400, "the agent's word of its clock")
    hospital.agent.kill()
    hospital.agent.start()


def test_after_all_of_that_every_image_is_final_and_authentic(hospital: Hospital) -> None:
    hospital.agent.start_if_down()

    def is_final() -> bool:
        anchoring = hospital.agent.status()["anchoring"] or {}
        return hospital.made == anchoring.get("log_size") == anchoring.get("final_size")

    hospital.close(anchored=True)
    until(is_final, "the last anchor", 120)
    verdicts = hospital.site.verdicts("images")
    assert len(verdicts) == hospital.made
    assert set(verdicts.values()) == {"AUTHENTIC"}


@pytest.mark.timeout(660)
def test_a_soak_of_random_faults_closes() -> None:
    command = [sys.executable, "scripts/soak", "--images", "60", "--seed", "1", "--every", "1.5", "--pause", "1.5", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["closes"]
    assert result["images"] == 60
    assert sum(result["faults"].values()) >= 3
