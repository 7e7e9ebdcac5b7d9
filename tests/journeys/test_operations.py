"""The agent as it is operated: stopped in the middle of a transfer, given other settings, backed up, lost and restored."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections import defaultdict
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from ledger.store import LogStore, open_store
from tests.journeys.agents import Agent, destination, dicom_source, running, store, until
from tests.journeys.conftest import Site, free_port, make_site
from tests.journeys.orthanc import Orthanc, orthanc


@pytest.fixture
def pacs(tmp_path: Path):
    with orthanc(tmp_path / "orthanc") as one:
        yield one


@pytest.fixture
def site(tmp_path: Path):
    """A site whose device is the scanner that made the test images."""
    made = make_site(tmp_path / "hospital")
    try:
        with (made.folder / "site.toml").open("a") as file:
            file.write("\n[anchoring]\ninterval_s = 1\n")
        add_scanner(made, "ct1")
        yield made
    finally:
        made.run("devnet", "down", expect=None)


def add_scanner(site: Site, name: str) -> None:
    made = ("--manufacturer", "GE MEDICAL SYSTEMS", "--model", "RHAPSODE", "--serial", "1", "--ae", "CT1")
    site.run("device", "request", name, *made)
    site.run("device", "approve", name)


def images(folder: Path, count: int, rows: int = 0) -> list[Path]:
    """CT images of one series, each an instance of its own with pixels of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(count):
        image = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.InstanceNumber = number + 1
        if rows:
            image.Rows = image.Columns = rows
            image.PixelData = bytes(2 * rows * rows)
        image.PixelData = number.to_bytes(2, "little") + image.PixelData[2:]
        path = folder / f"{number}.dcm"
        image.save_as(path)
        made.append(path)
    return made


def held(pacs: Orthanc) -> int:
    return int(json.loads(pacs.call("/statistics"))["CountInstances"])


def is_done(agent: Agent, count: int) -> bool:
    """Whether so many images are sealed, and all that is sealed is final."""
    told = agent.status()
    anchoring = told["anchoring"] or {}
    is_final = anchoring.get("log_size") == anchoring.get("final_size") and not anchoring.get("queued")
    return told["seal"].get("sealed", 0) >= count and bool(is_final)


def slots(folder: Path) -> dict[bytes, list[int]]:
    """key -> counters, of every entry of a site's log in their order."""
    store = open_store(folder / "store.sqlite", read_only=True)
    found = defaultdict(list)
    log = LogStore(store)
    size = int((log.checkpoint() or "\n0").splitlines()[1])
    for entry in log.entries(0, size):
        found[entry[96:128]].append(int.from_bytes(entry[128:160], "big"))
    store.close()
    return dict(found)


def test_sigterm_in_the_middle_of_a_transfer_loses_nothing_and_ends_with_0(site, pacs, tmp_path):
    port = free_port()
    sent = images(tmp_path / "series", 40, rows=512)
    with running(site, dicom_source("ct", port) + destination(pacs)) as agent:
        outcome = []
        sending = threading.Thread(target=lambda: outcome.append(store(port, *sent)))
        sending.start()
        until(lambda: agent.status()["spool"]["files"] >= 3, "the first images")
        assert agent.end(signal.SIGTERM) == 0
        sending.join(60)
        # What was answered is in the spool or at the PACS; the modality knows that the rest was not.
        assert outcome[0].returncode != 0
        agent.start()
        answered = sum(agent.status()["forward"].values())
        assert 3 <= answered < len(sent)
        until(lambda: held(pacs) == answered, "forwarding of what was answered")
        assert store(port, *sent).returncode == 0
        until(lambda: held(pacs) == len(sent), "forwarding of the rest")
        until(lambda: agent.status()["seal"].get("waiting", 0) == 0, "sealing")
        assert agent.status()["spool"]["lost"] == 0
        assert agent.end(signal.SIGINT) == 0
        assert [line for line in agent.events() if line["level"] not in ("info", "warning")] == []
    records = site.run("verify", *sent, "--offline", "--json", expect=4)
    assert '"PENDING"' in records.stdout
    assert '"UNREGISTERED"' not in records.stdout


def test_sighup_takes_new_settings_and_keeps_the_old_where_the_new_are_wrong(site, pacs, tmp_path):
    port, other = free_port(), free_port()
    sent = images(tmp_path / "series", 3)
    settings = dicom_source("ct", port) + destination(pacs)
    with running(site, settings) as agent:
        assert store(port, sent[0]).returncode == 0
        agent.configure(settings.replace(f"port = {port}", f"port = {other}"))
        agent.send(signal.SIGHUP)
        until(lambda: agent.status()["ports"] == {"ct": other}, "listening elsewhere")
        assert store(other, sent[1]).returncode == 0
        for line, wrong, says in (
            ('kind = "dicom"', 'kind = "dixom"', "its kind is one of"),
            ('device = "ct1"', 'device = "ct9"', "no key for device"),
            (f"port = {other}", "port = -1", "greater than or equal to 0"),
            ("[[source]]", "][", "not a TOML file"),
        ):
            agent.configure(settings.replace(f"port = {port}", f"port = {other}").replace(line, wrong))
            agent.send(signal.SIGHUP)
            until(lambda says=says: says in agent.status().get("troubles", {}).get("settings", ""), says)
            assert agent.status()["ports"] == {"ct": other}
        assert store(other, sent[2]).returncode == 0
        # A port that cannot be had shows only when it is tried: then the old settings are gone back to.
        agent.configure(settings.replace(f"port = {port}", f"port = {site.port}"))
        agent.send(signal.SIGHUP)
        until(lambda: "cannot listen" in agent.status().get("troubles", {}).get("settings", ""), "going back")
        assert agent.status()["ports"] == {"ct": other}
        until(lambda: held(pacs) == 3, "forwarding")
        agent.configure(settings)
        agent.send(signal.SIGHUP)
        until(lambda: agent.status()["ports"] == {"ct": port}, "the first settings")
        assert "settings" not in agent.status()["troubles"]
        assert agent.end() == 0


def test_a_site_that_was_backed_up_while_it_ran_and_lost_goes_on_without_repeating_a_counter(site, pacs, tmp_path):
    port = free_port()
    sent = images(tmp_path / "series", 12)
    settings = dicom_source("ct", port) + destination(pacs)
    mirror, archive = tmp_path / "mirror", tmp_path / "site.tar"
    with running(site, settings) as agent:
        assert store(port, *sent[:4]).returncode == 0
        until(lambda: is_done(agent, 4), "the first four")
        made = site.json("backup", archive)
        assert (made["records"], made["left_out"]) == (4, ["passphrase"])
        assert archive.stat().st_mode & 0o777 == 0o600
        assert store(port, *sent[4:8]).returncode == 0
        until(lambda: is_done(agent, 8), "the next four")
        site.run("log", "export", mirror)
        agent.end(signal.SIGKILL)
    before = slots(site.folder)

    # The disk is lost: what is left are the backup, the mirror, the passphrase and the chain.
    passphrase = {"SCANSEAL_PASSPHRASE": (site.folder / "passphrase").read_text().strip()}
    lost = site.folder.rename(tmp_path / "lost")
    (tmp_path / "here").mkdir()
    new = Site(tmp_path / "hospital", site.port)
    elsewhere = Site(tmp_path / "here", site.port)

    def restore(*more: object, expect: int = 0) -> str:
        done = elsewhere.run("restore", archive, new.folder, *more, expect=expect, env=passphrase | {"SCANSEAL_SITE": ""})
        return done.stdout + done.stderr

    assert "the chain has an anchor for 8 records, this backup has 4" in restore(expect=2)
    assert not new.folder.exists()
    assert "these keys sign nothing more: ct1" in restore("--log-mirror", mirror)
    site.folder = new.folder
    (new.folder / "devnet").symlink_to(lost / "devnet")

    # The old key signs nothing, whoever asks; images are received and forwarded all the same, and wait.
    assert "signs nothing more from here" in new.run("seal", sent[8], "--device", "ct1", expect=2, env=passphrase).stderr
    with running(new, settings, **passphrase) as agent:
        assert store(port, *sent[8:10]).returncode == 0
        until(lambda: held(pacs) == 10, "forwarding")
        until(lambda: any("key barred: ct1" in alarm for alarm in agent.status()["alarms"]), "the alarm")
        assert agent.status()["seal"] == {"sealed": 4, "waiting": 2}
        until(lambda: (agent.status()["anchoring"] or {}).get("final_size") == 8, "the chain's word on the log")
        new.run("device", "rotate", "ct1", "ct1b", env=passphrase)
        agent.configure(settings.replace('device = "ct1"', 'device = "ct1b"'))
        agent.send(signal.SIGHUP)
        assert until(lambda: is_done(agent, 6), "sealing with the new key")
        assert store(port, *sent[10:]).returncode == 0
        until(lambda: is_done(agent, 8), "sealing of what came then")
        assert agent.status()["alarms"] == []
        assert agent.end() == 0

    after = slots(new.folder)
    (old_key,) = before
    assert after.pop(old_key) == before[old_key] == list(range(8))
    assert list(after.values()) == [list(range(4))]
    assert set(new.verdicts(*sent[:4], *sent[8:]).values()) == {"AUTHENTIC"}


def test_a_site_that_moves_signs_no_more_here_and_goes_on_there(site, tmp_path):
    sent = images(tmp_path / "series", 3)
    site.run("seal", sent[0], "--device", "ct1")
    site.run("anchor")
    archive = tmp_path / "site.tar"
    site.run("backup", archive, "--move")
    assert "was moved to another machine" in site.run("seal", sent[1], "--device", "ct1", expect=2).stderr
    passphrase = {"SCANSEAL_PASSPHRASE": (site.folder / "passphrase").read_text().strip()}
    there = Site(tmp_path / "there", site.port)
    assert "sign nothing" not in site.run("restore", archive, there.folder, env=passphrase).stdout
    there.run("seal", *sent[1:], "--device", "ct1", env=passphrase)
    there.run("anchor", env=passphrase)
    assert list(slots(there.folder).values()) == [[0, 1, 2]]
    assert set(there.verdicts(*sent).values()) == {"AUTHENTIC"}


def test_an_old_copy_that_was_put_back_by_hand_seals_nothing(site, pacs, tmp_path):
    """Without `scanseal restore`: what the chain has tells."""
    port = free_port()
    sent = images(tmp_path / "series", 4)
    site.run("seal", sent[0], "--device", "ct1")
    site.run("anchor")
    shutil.copyfile(site.folder / "store.sqlite", tmp_path / "old.sqlite")
    site.run("seal", sent[1], "--device", "ct1")
    site.run("anchor")
    for path in site.folder.glob("store.sqlite*"):
        path.unlink()
    shutil.copyfile(tmp_path / "old.sqlite", site.folder / "store.sqlite")
    with running(site, dicom_source("ct", port) + destination(pacs)) as agent:
        assert store(port, *sent[2:]).returncode == 0
        until(lambda: held(pacs) == 2, "forwarding")
        until(lambda: "old copy" in agent.status()["troubles"].get("seal ct", ""), "the word of it")
        until(lambda: any(alarm.startswith("old copy restored") for alarm in agent.status()["alarms"]), "the alarm")
        assert agent.status()["seal"] == {"waiting": 2}
        assert agent.get("/healthz")[0] == 503
    assert site.run("agent", "status", expect=6)
