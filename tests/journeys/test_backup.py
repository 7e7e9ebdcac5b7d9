"""A site that is backed up while its agent runs, lost, restored, moved; and backups that are none."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import signal
import sqlite3
import tarfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.core.errors import FixInput, Stop, TryLater
from ledger.store import LogStore, open_store
from ledger.wiring.backup import backup, restore
from tests.agent.modality import data_set, digest, images, instance
from tests.journeys.agents import Agent, destination, dicom_source, running, store, until
from tests.journeys.conftest import Site, free_port
from tests.simulators.pacs import pacs


def is_done(agent: Agent, sealed: int, final: int) -> bool:
    """Whether so many images are sealed, and so many records final."""
    told = agent.status()
    return told["seal"].get("sealed") == sealed and (told["anchoring"] or {}).get("final_size") == final


def anchor_at_once(site: Site) -> None:
    with (site.folder / "site.toml").open("a") as file:
        file.write("\n[anchoring]\ninterval_s = 1\n")


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


def test_a_site_that_was_backed_up_while_it_ran_and_lost_goes_on_without_repeating_a_counter(own_site, tmp_path):
    port = free_port()
    sent = images(8, tmp_path / "series")
    settings = dicom_source("ct", port).replace('destination = "pacs"', "")
    mirror, archive = tmp_path / "mirror", tmp_path / "site.tar"
    anchor_at_once(own_site)
    with running(own_site, settings) as agent:
        assert store(port, *sent[:2]).returncode == 0
        until(lambda: is_done(agent, 2, 2), "the first two")
        made = own_site.json("backup", archive)
        assert (made["records"], made["left_out"]) == (2, ["passphrase"])
        assert archive.stat().st_mode & 0o777 == 0o600
        assert store(port, *sent[2:4]).returncode == 0
        until(lambda: is_done(agent, 4, 4), "the next two")
        own_site.run("log", "export", mirror)
        agent.end(signal.SIGKILL)
    before = slots(own_site.folder)

    # The disk is lost: what is left are the backup, the mirror, the passphrase and the chain.
    passphrase = (own_site.folder / "passphrase").read_text().strip()
    lost, new = own_site.folder, Site(tmp_path / "restored", own_site.port)
    elsewhere = Site(tmp_path, own_site.port)

    def restored(*more: object, expect: int = 0) -> str:
        given = {"SCANSEAL_PASSPHRASE": passphrase, "SCANSEAL_SITE": ""}
        done = elsewhere.run("restore", archive, new.folder, *more, expect=expect, env=given)
        return done.stdout + done.stderr

    assert "the chain has an anchor for 4 records, this backup has 2" in restored(expect=2)
    assert not new.folder.exists()
    told = restored("--log-mirror", mirror)
    assert "these keys sign nothing more: ct1" in told
    assert "put it back: passphrase" in told
    (new.folder / "passphrase").write_text(passphrase)
    (new.folder / "devnet").symlink_to(lost / "devnet")

    # The old key signs nothing, whoever asks; images are received all the same, and wait.
    assert "signs nothing more from here" in new.run("seal", sent[4], "--device", "ct1", expect=2).stderr
    with running(new, settings) as agent:
        assert store(port, *sent[4:6]).returncode == 0
        until(lambda: any("key barred: ct1" in alarm for alarm in agent.status()["alarms"]), "the alarm")
        assert agent.status()["seal"] == {"sealed": 2, "waiting": 2}
        until(lambda: (agent.status()["anchoring"] or {}).get("final_size") == 4, "the chain's word on the log")
        new.run("device", "rotate", "ct1", "ct1b")
        agent.configure(settings.replace('device = "ct1"', 'device = "ct1b"'))
        agent.send(signal.SIGHUP)
        assert until(lambda: is_done(agent, 4, 6), "sealing with the new key")
        assert store(port, *sent[6:]).returncode == 0
        until(lambda: is_done(agent, 6, 8), "sealing of what came then")
        assert agent.status()["alarms"] == []
        assert agent.end() == 0

    after = slots(new.folder)
    (old_key,) = before
    assert after.pop(old_key) == before[old_key] == list(range(4))
    assert list(after.values()) == [list(range(4))]
    # What was sealed after the backup is in the log; what opens its records was lost with the disk.
    assert set(new.verdicts(*sent[:2], *sent[4:]).values()) == {"AUTHENTIC"}


def test_an_old_copy_that_was_put_back_by_hand_seals_nothing(own_site, tmp_path):
    """Without `scanseal restore`: what the chain has tells."""
    port = free_port()
    sent = images(3, tmp_path / "series")
    own_site.run("seal", sent[0], "--device", "ct1")
    own_site.run("anchor")
    shutil.copyfile(own_site.folder / "store.sqlite", tmp_path / "old.sqlite")
    own_site.run("seal", sent[1], "--device", "ct1")
    own_site.run("anchor")
    for path in own_site.folder.glob("store.sqlite*"):
        path.unlink()
    shutil.copyfile(tmp_path / "old.sqlite", own_site.folder / "store.sqlite")
    with running(own_site, dicom_source("ct", port).replace('destination = "pacs"', "")) as agent:
        assert store(port, sent[2]).returncode == 0
        until(lambda: "old copy" in agent.status()["troubles"].get("seal ct", ""), "the word of it")
        until(lambda: any(alarm.startswith("old copy restored") for alarm in agent.status()["alarms"]), "the alarm")
        assert agent.status()["seal"] == {"waiting": 1}
        assert agent.get("/healthz")[0] == 503


def test_a_site_that_moves_signs_no_more_here_and_goes_on_there_with_the_images_that_wait(own_site, tmp_path, monkeypatch):
    sent, port, pacs_port = images(3, tmp_path / "series"), free_port(), free_port()
    settings = dicom_source("ct", port) + destination(pacs_port)
    archive, there = tmp_path / "site.tar", Site(tmp_path / "there", own_site.port)
    monkeypatch.setenv("SCANSEAL_PASSPHRASE", (own_site.folder / "passphrase").read_text().strip())
    anchor_at_once(own_site)
    with running(own_site, settings) as agent:
        assert store(port, *sent[:2]).returncode == 0
        until(lambda: is_done(agent, 2, 2), "sealing")
        assert agent.status()["forward"] == {"waiting": 2}
        assert "agent run` runs on this site" in own_site.run("backup", archive, "--move", expect=6).stderr
        assert agent.end() == 0
    made = backup(own_site.folder, archive, move=True)
    assert (made.records, made.images) == (2, 2)
    assert "was moved to another machine" in own_site.run("seal", sent[2], "--device", "ct1", expect=2).stderr

    assert restore(archive, there.folder).barred == ()
    (there.folder / "agent.toml").write_text((own_site.folder / "agent.toml").read_text())
    with pacs(pacs_port) as archive_there, running(there, settings) as agent:
        until(lambda: agent.status()["forward"] == {"sent": 2}, "forwarding of what waited")
        assert archive_there.held() == {instance(path): [digest(data_set(path))] for path in sent[:2]}
        assert store(port, sent[2]).returncode == 0
        until(lambda: is_done(agent, 3, 3), "sealing there")
        assert agent.end() == 0
    assert list(slots(there.folder).values()) == [[0, 1, 2]]
    assert set(there.verdicts(*sent).values()) == {"AUTHENTIC"}


# ---- without an agent -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backed(site, tmp_path_factory, module_monkeypatch) -> Path:
    """A backup of a site with six sealed images, which is there for other tests, too."""
    archive = tmp_path_factory.mktemp("backups") / "site.tar"
    made = backup(site.folder, archive)
    assert (made.records, made.log_size, made.images) == (6, 6, 0)
    return archive


@pytest.fixture(scope="module")
def module_monkeypatch(site):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCANSEAL_PASSPHRASE", (site.folder / "passphrase").read_text().strip())
        yield patch


def rewritten(archive: Path, target: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]) -> Path:
    """A copy of an archive, with its members as a test wants them."""
    with tarfile.open(archive) as opened:
        members = [(entry, opened.extractfile(entry).read()) for entry in opened]
    change(members)
    with tarfile.open(target, "w") as opened:
        for entry, data in members:
            entry.size = len(data) if entry.isreg() else 0
            opened.addfile(entry, io.BytesIO(data))
    return target


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    return entry, data


@pytest.mark.parametrize(
    "extra",
    [
        member("../outside"),
        member("keys/../../outside"),
        member("/tmp/outside"),
        member("passphrase"),
        member("spool"),
        member("keys/one", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        member("keys/one", kind=tarfile.LNKTYPE, link="site.toml"),
        member("keys/one", kind=tarfile.FIFOTYPE),
        member("site.toml", b"name = 'another'"),
        member("keys/not-listed", b"a key"),
    ],
    ids=lambda one: f"{one[0].name} {one[0].type.decode()}",
)
def test_a_backup_with_a_member_that_is_not_a_sites_is_refused_and_writes_nothing(backed, tmp_path, extra):
    target = rewritten(backed, tmp_path / "hostile.tar", lambda members: members.insert(1, extra))
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(FixInput):
        restore(target, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_backup_that_is_cut_off_or_altered_anywhere_is_refused(backed, tmp_path):
    whole, target = backed.read_bytes(), tmp_path / "damaged.tar"
    with tarfile.open(backed) as opened:
        entries = list(opened)
    cuts = [0, 100, *(entry.offset_data + entry.size // 2 for entry in entries), entries[-1].offset]
    damages = [whole[:cut] for cut in cuts]
    for entry in entries:
        changed = bytearray(whole)
        changed[entry.offset_data + entry.size // 2] ^= 1
        damages.append(bytes(changed))
    for damaged in damages:
        target.write_bytes(damaged)
        with pytest.raises(FixInput, match=r"damaged\.tar"):
            restore(target, tmp_path / "new")
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("head", [[], {}, {"format": "scanseal-backup-2"}, {"format": "scanseal-backup-1", "files": {}}, 1])
def test_an_archive_that_says_strange_things_of_itself_is_refused(backed, tmp_path, head):
    def change(members):
        members[-1] = member("backup.json", json.dumps(head).encode())

    with pytest.raises(FixInput, match="not a whole backup"):
        restore(rewritten(backed, tmp_path / "strange.tar", change), tmp_path / "new")


def test_a_backup_for_evidence_alone_has_no_key_and_signs_nothing(site, backed, tmp_path):
    folder = tmp_path / "evidence"
    made = restore(backed, folder, evidence_only=True)
    assert (made.records, made.anchored_size) == (6, None)
    assert not list(folder.glob("keys/*"))
    assert not (folder / "ca" / "ca.key").exists()
    there = Site(folder, site.port)
    assert set(there.verdicts(*sorted((site.folder / "made").iterdir())[:2]).values()) == {"AUTHENTIC"}
    there.run("seal", site.folder / "made" / "CT_small.dcm", "--device", "ct1", expect=2)


def test_nothing_is_restored_while_the_chain_does_not_answer_nor_over_anything(site, backed, tmp_path):
    def another_node(members):
        head = json.loads(members[-1][1])
        for index, (entry, data) in enumerate(members):
            if entry.name == "site.toml":
                changed = data.replace(str(site.port).encode(), str(free_port()).encode())
                members[index] = member("site.toml", changed)
                head["files"]["site.toml"] = hashlib.sha256(changed).hexdigest()
        members[-1] = member("backup.json", json.dumps(head).encode())

    with pytest.raises(TryLater):
        restore(rewritten(backed, tmp_path / "elsewhere.tar", another_node), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(FixInput, match="is not empty"):
        restore(backed, site.folder)
    with pytest.raises(FixInput, match="never overwritten"):
        backup(site.folder, backed)


def test_a_damaged_store_is_found_when_it_is_backed_up(own_site, tmp_path):
    path = own_site.folder / "store.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data), 4096):
        data[at : at + 64] = b"\xff" * 64
    path.write_bytes(bytes(data))
    with pytest.raises((Stop, TryLater), match=r"damaged|could not be copied"):
        backup(own_site.folder, tmp_path / "site.tar")
    assert not list(tmp_path.glob("*.tar"))
    assert not list(tmp_path.glob(".backup-*"))
