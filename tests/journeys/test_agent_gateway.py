"""What comes over the network is recorded by a gateway, and never sealed as acquired: the signing oracle of docs/threats.md."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pydicom
import pytest
from pydicom.uid import generate_uid

from tests.journeys.agents import Agent, running, until
from tests.journeys.conftest import Site, add_device, copy_test_file, make_site
from tests.journeys.test_custody import add_key
from tests.journeys.test_main_job import SCHEMA

SETTINGS = """
[spool]
min_free_mb = 1
[[source]]
name = "network"
kind = "folder"
role = "gateway"
gateway = "gw"
path = "{site}/network"
settle_s = 0.2
[[source]]
name = "scanner"
kind = "folder"
role = "acquire"
device = "ct1"
gateway = "gw"
path = "{site}/scanner"
settle_s = 0.2
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = make_site(tmp_path_factory.mktemp("gateway"))
    try:
        add_device(made, "ct1", "secp256k1", "1")
        add_key(made, "gw", "hold", "--at", "Hospital")
        for name in ("network", "scanner", "known"):
            (made.folder / name).mkdir()
        yield made
    finally:
        made.run("devnet", "down", expect=None)


@pytest.fixture(scope="module")
def agent(site: Site) -> Iterator[Agent]:
    with running(site, SETTINGS.format(site=site.folder), SCANSEAL_AGENT_ANCHOR="false") as one:
        yield one


def image(folder: Path, serial: str | None, name: str = "CT_small.dcm") -> Path:
    """A new image of the enrolled scanner, or (another serial number) of another device."""
    path = copy_test_file(name, folder)
    dataset = pydicom.dcmread(path)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.Manufacturer, dataset.ManufacturerModelName = "Acme", "CT 3000"
    if serial is not None:
        dataset.DeviceSerialNumber = serial
    dataset.PixelData = secrets.token_bytes(64) + dataset.PixelData[64:]
    dataset.save_as(path)
    return path.rename(folder / f"{dataset.SOPInstanceUID}.dcm")


def seals(agent: Agent) -> dict[str, int]:
    status = agent.status()
    return {state: count for state, count in status["seal"].items() if count}


def test_a_gateway_notes_what_is_known_here_and_seals_nothing(site, agent):
    sealed = image(site.folder / "known", "1")
    site.run("seal", sealed, "--device", "ct1")
    before = seals(agent)
    shutil.copy(sealed, site.folder / "network")
    until(lambda: seals(agent).get("received", 0) == before.get("received", 0) + 1, "the record of the gateway")
    site.run("anchor")
    found = site.json("verify", sealed)["images"][0]
    assert found["verdict"] == "AUTHENTIC"
    steps = [step["action"] for step in found["custody"]]
    assert steps == ["acquired", "stored"]
    assert not any(step["finding"] for step in found["custody"])


def test_an_image_that_nobody_sealed_is_held_by_a_gateway_and_not_made_authentic(site, agent, tmp_path):
    before = seals(agent)
    stranger = image(site.folder / "network", "1")
    shutil.copy(stranger, site.folder / "network" / "again.dcm")
    until(lambda: seals(agent).get("received", 0) == before.get("received", 0) + 2, "the records of the gateway")
    assert seals(agent).get("sealed", 0) == before.get("sealed", 0)
    assert site.verdicts(stranger, expect=3) == {stranger.name: "UNREGISTERED"}
    assert site.json("anchor")["sequenced"] == 1, "what came twice is recorded once"
    found = site.json("verify", stranger, expect=3)["images"][0]
    assert found["verdict"] == "UNREGISTERED"
    assert any("held it as it is now" in reason for reason in found["reasons"])
    assert [step["action"] for step in found["custody"]] == ["held"]
    assert all(found["sealed_between"])
    jsonschema.validate(found, SCHEMA["$defs"]["image"] | {"$defs": SCHEMA["$defs"]})
    assert "of unknown origin" in site.run("verify", stranger, expect=3).stdout
    assert "nobody signed where it comes from" in site.run("explain", stranger, expect=3).stdout.replace("\n", " ")
    # What was changed since the gateway held it shows.
    edited = pydicom.dcmread(stranger)
    edited.PixelData = bytes(64) + edited.PixelData[64:]
    edited.save_as(tmp_path / "edited.dcm")
    assert site.verdicts(tmp_path / "edited.dcm", expect=1) == {"edited.dcm": "ALTERED"}


def test_a_scanners_source_seals_only_what_the_scanner_made(site, agent):
    before = seals(agent)
    own, foreign = image(site.folder / "scanner", "1"), image(site.folder / "scanner", "4711", "MR_small.dcm")
    until(lambda: sum(seals(agent).values()) == sum(before.values()) + 2 and not seals(agent).get("waiting"), "their end")
    assert seals(agent)["sealed"] == before.get("sealed", 0) + 1
    site.run("anchor")
    assert site.verdicts(own) == {own.name: "AUTHENTIC"}
    assert site.verdicts(foreign, expect=3) == {foreign.name: "UNREGISTERED"}


def test_a_person_holds_images_of_unknown_origin_by_hand(site, tmp_path):
    unknown, known = image(tmp_path, "4711", "MR_small.dcm"), image(site.folder / "known", "1")
    site.run("seal", known, "--device", "ct1")
    done = site.json("custody", "add", unknown, known, "--action", "held", "--device", "gw", expect=7)
    assert (done["signed"], done["failed"]) == (1, 1)
    assert "a record of it is here already" in next(row["error"] for row in done["images"] if row["error"])
    again = site.json("custody", "add", unknown, "--action", "held", "--device", "gw")
    assert again["images"][0]["record_id"] == next(row["record_id"] for row in done["images"] if row["record_id"])
    site.run("anchor")
    assert site.verdicts(unknown, expect=3) == {unknown.name: "UNREGISTERED"}
    shown = site.json("custody", "show", unknown)
    assert "held" in str(shown)
