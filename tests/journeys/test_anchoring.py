"""`scanseal anchor --watch`, `scanseal log status` and `[anchoring]` of site.toml, as a user has them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.journeys.conftest import SCANSEAL, Site, copy_test_file

IMAGES = ("CT_small.dcm", "MR_small.dcm", "JPEG-lossy.dcm")


def configure(site: Site, **anchoring: object) -> None:
    path = site.folder / "site.toml"
    kept = path.read_text().partition("\n[anchoring]")[0]
    path.write_text(kept + "\n[anchoring]\n" + "".join(f"{name} = {value}\n" for name, value in anchoring.items()))


@contextmanager
def watching(site: Site, *more: str) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"SCANSEAL_SITE": str(site.folder)}
    process = subprocess.Popen(
        [*SCANSEAL, "anchor", "--watch", *more], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


def status_until(site: Site, condition: Callable[[dict], bool]) -> dict:
    deadline = time.monotonic() + 40
    while True:
        status = site.json("log", "status")
        if condition(status):
            return status
        assert time.monotonic() < deadline, status
        time.sleep(0.2)


def test_watching_anchors_what_is_sealed_meanwhile_and_stops_when_told(own_site: Site, tmp_path: Path) -> None:
    configure(own_site, interval_s=1)
    with watching(own_site, "--json") as process:
        for number, name in enumerate(IMAGES, 1):
            own_site.run("seal", copy_test_file(name, tmp_path / "images"), "--device", "ct1")
            status = status_until(own_site, lambda status, number=number: status["final_size"] == number)
        assert status["alarms"] == []
        assert int(status["spent_today_wei"]) > 0
        assert int(status["forecast"]["wei_per_day"]) > 0
        assert status["forecast"]["days_left"] > 1
        assert "another" in own_site.run("anchor", expect=6).stderr
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    lines = [json.loads(line) for line in output.splitlines()]
    assert lines
    assert lines[-1].keys() == status.keys()
    assert set(own_site.verdicts(tmp_path / "images").values()) == {"AUTHENTIC"}
    assert set(own_site.verdicts(tmp_path / "images", "--offline").values()) == {"AUTHENTIC"}
    shown = own_site.run("log", "status").stdout
    assert "every record is anchored" in shown
    assert "account lasts" in shown


def test_a_watch_that_is_killed_is_carried_on_by_the_next_run(own_site: Site, tmp_path: Path) -> None:
    own_site.run("seal", copy_test_file("CT_small.dcm", tmp_path), "--device", "ct1")
    with watching(own_site) as process:
        status_until(own_site, lambda status: status["anchored_size"] == 1)
        process.kill()
    own_site.run("anchor")
    assert own_site.verdicts(tmp_path) == {"CT_small.dcm": "AUTHENTIC"}


def test_a_single_run_obeys_the_ceiling_of_the_site(own_site: Site, tmp_path: Path) -> None:
    own_site.run("seal", copy_test_file("CT_small.dcm", tmp_path), "--device", "ct1")
    configure(own_site, ceiling_gwei=0.001)
    assert "the ceiling is 0.001" in own_site.run("anchor", expect=6).stderr
    assert own_site.json("log", "status")["log_size"] == 1
    configure(own_site, ceiling_gwei=100)
    own_site.run("anchor")


def test_the_status_is_told_without_a_chain_and_without_keys(own_site: Site, tmp_path: Path) -> None:
    own_site.run("seal", copy_test_file("CT_small.dcm", tmp_path), "--device", "ct1")
    own_site.run("devnet", "down")
    (own_site.folder / "passphrase").unlink()
    status = own_site.json("log", "status")
    assert (status["queued"], status["log_size"]) == (1, 0)
    assert "nothing answers" in status["last_error"]
    assert status["doing"] == "1 records wait"


@pytest.mark.parametrize(
    ("anchoring", "message"),
    [
        ({"intervall_s": 5}, "has no intervall_s; it has interval_s, batch, ceiling_gwei, budget_eth_per_day"),
        ({"interval_s": 0}, "interval_s must be a whole number above 0"),
        ({"batch": 1.5}, "batch must be a whole number above 0"),
        ({"ceiling_gwei": '"200"'}, "ceiling_gwei must be a number above 0"),
        ({"budget_eth_per_day": "nan"}, "budget_eth_per_day must be a number above 0"),
        ({"budget_eth_per_day": "true"}, "budget_eth_per_day must be a number above 0"),
    ],
)
def test_a_policy_that_means_nothing_is_refused(tmp_path: Path, anchoring: dict, message: str) -> None:
    (tmp_path / "site.toml").write_text('name = "x"\nrpc = ["http://127.0.0.1:1"]\n')
    site = Site(tmp_path, 1)
    configure(site, **anchoring)
    assert message in site.run("log", "status", expect=2).stderr


def test_watching_publishes_no_leaves(site: Site) -> None:
    assert "roots only" in site.run("anchor", "--watch", "--publish-leaves", expect=2).stderr
