"""The agent as it is operated: stopped in the middle of a transfer, and given other settings while it runs."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tests.agent.modality import image, images
from tests.journeys.agents import destination, dicom_source, running, store, until
from tests.journeys.conftest import free_port
from tests.journeys.orthanc import Orthanc, orthanc


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as one:
        yield one


def held(pacs: Orthanc) -> int:
    return int(json.loads(pacs.call("/statistics"))["CountInstances"])


def test_sigterm_in_the_middle_of_a_transfer_loses_nothing_and_ends_with_0(own_site, pacs, tmp_path):
    port, before = free_port(), held(pacs)
    sent = [image(number, tmp_path / "series", side=1024) for number in range(25)]
    with running(own_site, dicom_source("ct", port) + destination(pacs), SCANSEAL_AGENT_ANCHOR="false") as agent:
        outcome = []
        sending = threading.Thread(target=lambda: outcome.append(store(port, *sent)))
        sending.start()
        until(lambda: agent.status()["spool"]["files"] >= 3, "the first images")
        assert agent.end(signal.SIGTERM) == 0
        sending.join(60)
        # What was answered is in the spool or at the PACS; the modality knows that the rest was not.
        assert outcome[0].returncode != 0
        agent.start(SCANSEAL_AGENT_ANCHOR="false")
        answered = sum(agent.status()["forward"].values())
        assert 3 <= answered < len(sent)
        until(lambda: held(pacs) == before + answered, "forwarding of what was answered")
        assert store(port, *sent).returncode == 0
        until(lambda: held(pacs) == before + len(sent), "forwarding of the rest")
        until(lambda: agent.status()["seal"].get("waiting", 0) == 0, "sealing")
        assert agent.status()["spool"]["lost"] == 0
        assert agent.end(signal.SIGINT) == 0
        assert [line for line in agent.events() if line["level"] not in ("info", "warning")] == []
    records = own_site.run("verify", sent[0], sent[-1], "--offline", "--json", expect=4)
    assert '"PENDING"' in records.stdout


def test_sighup_takes_new_settings_and_keeps_the_old_where_the_new_are_wrong(own_site, pacs, tmp_path):
    port, other, before = free_port(), free_port(), held(pacs)
    sent = images(3, tmp_path / "series", first=100)
    settings = dicom_source("ct", port) + destination(pacs)
    more = settings + dicom_source("ct2", other, destination="second") + destination(pacs, "second")
    with running(own_site, settings, SCANSEAL_AGENT_ANCHOR="false") as agent:

        def reload(settings: str) -> None:
            agent.configure(settings)
            agent.send(signal.SIGHUP)

        def trouble() -> str:
            return agent.status()["troubles"].get("settings", "")

        assert store(port, sent[0]).returncode == 0
        reload(more)
        until(lambda: agent.status()["ports"] == {"ct": port, "ct2": other}, "listening on both")
        assert "forward to second" in agent.status()["workers"]
        assert store(other, sent[1]).returncode == 0
        pid = agent.status()["pid"]
        for line, wrong, says in (
            ('device = "ct1"', 'device = "ct9"', "no key for device"),
            ("[[source]]", "][", "not a TOML"),
        ):
            reload(more.replace(line, wrong))
            until(lambda says=says: says in trouble(), says)
            assert agent.status()["ports"] == {"ct": port, "ct2": other}
        # A port that cannot be had shows only when it is tried: then the old settings are gone back to.
        reload(more.replace(f"port = {other}", f"port = {own_site.port}"))
        until(lambda: "cannot listen" in trouble(), "going back")
        assert agent.status()["ports"] == {"ct": port, "ct2": other}
        assert store(other, sent[2]).returncode == 0
        until(lambda: held(pacs) == before + 3, "forwarding")
        # Whoever asks again while it is on its way to new settings gets the newest.
        for _ in range(4):
            reload(settings)
            time.sleep(0.15)
            reload(more)
            time.sleep(0.15)
        until(lambda: agent.status()["ports"] == {"ct": port, "ct2": other}, "the settings of last")
        reload(settings)
        until(lambda: agent.status()["ports"] == {"ct": port}, "the first settings")
        assert (trouble(), agent.status()["pid"]) == ("", pid)
        assert agent.end() == 0
