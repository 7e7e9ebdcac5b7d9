"""A running agent as monitors see it: what it tells, what dashboard and alerts ask for, and that no patient is in any of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ledger.agent.receiver import __file__ as receiver_file
from ledger.chain import Endpoint
from tests.agent import private
from tests.agent.modality import MAKER
from tests.agent.private import MALFORMED, Patient, leaks
from tests.journeys.agents import Agent, destination, running, store, until
from tests.journeys.conftest import Site, add_device, free_port, make_site
from tests.journeys.orthanc import Orthanc, orthanc
from tests.journeys.test_custody import add_key

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations"
DOCS = Path(__file__).parents[2] / "docs" / "agent.md"
PATIENT = Patient("Xqmüßfödér", "Xqanneliese", "山田太郎", "PQ4815162342", "19340927", "Z1597534862")
SETTINGS = """
[spool]
min_free_mb = 1

[[source]]
kind = "dicom"
name = "ct"
role = "acquire"
device = "ct1"
port = {ct}
destination = "pacs"
allow = [{{ ae_title = "STORESCU", address = "127.0.0.1" }}]

[[source]]
kind = "dicom"
name = "net"
role = "gateway"
gateway = "gw"
port = {net}
destination = "gone"

[[source]]
kind = "folder"
name = "export"
role = "acquire"
device = "ct1"
gateway = "gw"
path = "{folder}"
settle_s = 0.2
destination = "pacs"

[[source]]
kind = "orthanc"
name = "research"
role = "gateway"
gateway = "gw"
url = "{url}"
poll_s = 0.5
"""


@dataclass
class Watched:
    """An agent with every kind of source, a PACS that is there and one that is not, and a patient everywhere in its images."""

    site: Site
    agent: Agent
    pacs: Orthanc
    ct: int
    net: int
    settings: str

    def metrics(self) -> str:
        return self.agent.get("/metrics")[1]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    site = make_site(tmp_path_factory.mktemp("watched") / "hospital")
    try:
        add_device(site, "ct1", "secp256k1", "4711")
        add_key(site, "gw", "hold", "--at", "Hospital")
        with (site.folder / "site.toml").open("a") as file:
            file.write("\n[anchoring]\ninterval_s = 1\n")
        (site.folder / "export").mkdir()
        with orthanc(site.folder / "orthanc") as pacs:
            ct, net = free_port(), free_port()
            settings = SETTINGS.format(ct=ct, net=net, folder=site.folder / "export", url=pacs.url)
            settings += destination(pacs) + destination(free_port(), "gone")
            with running(site, settings) as agent:
                one = Watched(site, agent, pacs, ct, net, settings)
                feed(one)
                yield one
    finally:
        site.run("devnet", "down", expect=None)


def feed(watched: Watched) -> None:
    folder = watched.site.folder / "sent"
    folder.mkdir()
    made = {name: private.written(private.image(PATIENT, MAKER, number)) for number, name in enumerate(("one", "two", "three"))}
    foreign = private.written(private.image(PATIENT, (PATIENT.family, "X", PATIENT.number), 9))
    for name, data in (made | {"foreign": foreign}).items():
        (folder / f"{name} {PATIENT.file_name}").write_bytes(data)
    files = sorted(folder.iterdir())
    assert store(watched.ct, *files).returncode == 0
    assert store(watched.net, *files, calling=PATIENT.ae_title).returncode == 0
    assert store(watched.ct, *files, calling=PATIENT.ae_title).returncode != 0
    watched.pacs.upload(foreign)
    for number, (what, make) in enumerate(MALFORMED.items()):
        data = make(PATIENT, private.image(PATIENT, MAKER, 100 + number))
        part = watched.site.folder / "export" / f".{number}"
        part.write_bytes(data)
        part.rename(part.with_name(f"{what} {PATIENT.file_name}"))
    count = 2 * len(files) + len(MALFORMED)
    until(lambda: watched.agent.status()["spool"]["files"] >= count, "the arrival of all")
    until(lambda: watched.agent.status()["seal"].get("waiting", 0) == 0, "sealing")
    until(lambda: (watched.agent.status()["anchoring"] or {}).get("final_size"), "the first final anchor")
    until(lambda: "scanseal_log_account_left_seconds" in watched.metrics(), "a forecast")


# ---- what is told ---------------------------------------------------------------------------------------------------


def exposed(metrics: str) -> set[str]:
    """The names of the series that a scrape has."""
    return {re.split(r"[{ ]", line, maxsplit=1)[0] for line in metrics.splitlines() if line and not line.startswith("#")}


def dashboard() -> dict[str, str]:
    """Panel -> expression, of every panel of the dashboard, with its variables as Grafana fills them in."""
    panels = json.loads((OPERATIONS / "grafana-dashboard.json").read_text())["panels"]
    return {
        f"{panel['title']} {target['refId']}": target["expr"].replace("$instance", ".*")
        for panel in panels
        for target in panel.get("targets", ())
    }


def alerts() -> dict[str, str]:
    """Alert -> expression."""
    text = (OPERATIONS / "prometheus-rules.yml").read_text()
    return dict(re.findall(r"- alert: (\w+)\n\s+expr: (.+)\n", text))


def test_dashboard_and_alerts_ask_for_nothing_that_a_running_agent_does_not_tell(watched):
    scraped, asked = watched.metrics(), dashboard() | alerts()
    assert len(alerts()) == (OPERATIONS / "prometheus-rules.yml").read_text().count("alert:") > 10
    assert len(asked) > 30
    values = set(re.findall(r'(\w+)="([^"]*)"', scraped))
    for where, expression in asked.items():
        names = set(re.findall(r"\b(scanseal_\w+)", expression)) | ({"up"} & set(re.findall(r"\b(up)\{", expression)))
        assert names, where
        assert names <= exposed(scraped) | {"up"}, where
        assert set(re.findall(r'(step|state)="(\w+)"', expression)) <= values, where
    reasons = {
        word for one in alerts().values() for words in re.findall(r'reason=~"([^"]+)"', one) for word in words.split("|")
    }
    assert all(f'"{reason}"' in Path(receiver_file).read_text() for reason in reasons)


def test_everything_that_an_agent_tells_is_on_the_dashboard_and_in_the_manual(watched):
    shown, manual = " ".join(dashboard().values()), DOCS.read_text()
    names = {name for name in exposed(watched.metrics()) if not name.endswith("_created")}
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", shown)] == []
    assert [name for name in sorted(names) if f"`{name}`" not in manual] == []


def test_each_alert_says_who_it_is_about_and_the_runbook_what_to_do():
    rules, runbook = (OPERATIONS / "prometheus-rules.yml").read_text(), (OPERATIONS / "README.md").read_text()
    for name in alerts():
        rule = rules.partition(f"alert: {name}\n")[2].partition("- alert:")[0]
        assert "$labels.instance" in rule, name
        assert re.search(r"severity: (page|ticket)\b", rule), name
        assert f"### {name}\n" in runbook, name
    assert set(re.findall(r"^### (ScanSeal\w+)$", runbook, re.MULTILINE)) == set(alerts())


def test_prometheus_takes_the_alerts_and_every_query_of_the_dashboard(tmp_path):
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("promtool (Debian: prometheus) is not installed")
        pytest.skip("promtool (Debian: prometheus) is not installed")
    rules = [{"record": f"panel:{number}", "expr": one} for number, one in enumerate(dashboard().values())]
    (tmp_path / "dashboard.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    for path in (OPERATIONS / "prometheus-rules.yml", tmp_path / "dashboard.yml"):
        done = subprocess.run([found, "check", "rules", path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_scrape_is_what_prometheus_asks_for(watched):
    done = subprocess.run(
        [shutil.which("promtool") or "true", "check", "metrics"], input=watched.metrics(), text=True, capture_output=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# ---- nothing of a patient -------------------------------------------------------------------------------------------


def on_chain(site: Site) -> bytes:
    """Everything that every transaction of the chain carried."""
    node = Endpoint(f"http://127.0.0.1:{site.port}")
    newest = int(node.call("eth_blockNumber"), 16)
    blocks: list[dict[str, Any]] = [node.call("eth_getBlockByNumber", hex(number), True) for number in range(newest + 1)]
    inputs = [one["input"] for block in blocks for one in block["transactions"]]
    assert inputs
    return b"".join(bytes.fromhex(one.removeprefix("0x")) for one in inputs)


def test_nothing_of_a_patient_is_in_what_an_agent_says_writes_or_anchors(watched):
    site, agent, outputs = watched.site, watched.agent, {}
    for path in ("status", "healthz", "metrics", PATIENT.number):
        outputs[f"/{path}"] = agent.get(f"/{path}")[1].encode()
    for command, code in (("status", None), ("check", 0), ("doctor", None)):
        done = site.run("agent", command, expect=code)
        outputs[f"agent {command}"] = (done.stdout + done.stderr).encode()
    outputs["log status"] = site.run("log", "status", expect=None).stdout.encode()
    # Settings with a mistake in a value: the mistake is named, and not the value.
    agent.configure(watched.settings.replace('name = "ct"', f'name = "{PATIENT.family}^{PATIENT.given}"'))
    agent.send(signal.SIGHUP)
    until(lambda: "settings" in agent.status()["troubles"], "the refusal of wrong settings")
    outputs["/status with a mistake"] = agent.get("/status")[1].encode()
    outputs["agent check with a mistake"] = site.run("agent", "check", expect=2).stderr.encode()
    agent.configure(watched.settings)
    outputs["the chain"] = on_chain(site)
    outputs["names of files"] = private.folder_names(site.folder, ("export/", "sent/"))
    outputs["names of the spool"] = private.folder_names(site.folder / "spool", ())
    outputs["log"] = agent.log().encode()
    assert len(agent.events()) > 3
    told = json.loads(outputs["/status"])
    assert {"sealed", "refused"} <= set(told["seal"])
    assert {"ct: not allowed"} <= set(told["refused"])
    assert "forward to gone" in told["troubles"]
    assert not leaks([PATIENT], outputs)
    assert leaks([PATIENT], {"what was sent": private.folder_names(site.folder, ())})
