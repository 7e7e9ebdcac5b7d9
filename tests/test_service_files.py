"""The files that an agent is installed with: the systemd unit, the Containerfile, and the lists of what they install."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ledger.core.errors import FixInput, Stop, TryLater

ROOT = Path(__file__).parents[1]
OPERATIONS = ROOT / "docs" / "operations"


def tool(name: str, package: str) -> str:
    """A program's path. Where it is not installed: an error in CI, a named skip elsewhere."""
    found = shutil.which(name)
    if found is None:
        why = f"{name} (Debian: {package}) is not installed"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return found


def unit() -> dict[str, list[str]]:
    """Setting -> values, of the systemd unit."""
    found: dict[str, list[str]] = {}
    for line in (OPERATIONS / "scanseal-agent.service").read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_systemd_takes_the_unit_and_finds_it_well_confined(tmp_path):
    analyze = tool("systemd-analyze", "systemd")
    text = (OPERATIONS / "scanseal-agent.service").read_text()
    path = tmp_path / "scanseal-agent.service"
    path.write_text(text.replace("/opt/scanseal/bin/scanseal", sys.executable))
    done = subprocess.run([analyze, "verify", "--man=no", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    path.write_text(text.replace("NoNewPrivileges=yes", "NoNewPrivilege=yes"))
    assert "NoNewPrivilege" in subprocess.run([analyze, "verify", "--man=no", path], capture_output=True, text=True).stderr
    path.write_text(text)
    shown = subprocess.run([analyze, "security", "--offline=yes", path], capture_output=True, text=True).stdout
    assert float(re.search(r"exposure level for \S+: ([\d.]+)", shown)[1]) < 2


def test_the_unit_runs_as_its_own_user_and_starts_again_but_not_after_a_mistake():
    given = unit()
    assert given["User"] == given["Group"] == ["scanseal"]
    assert given["Environment"] == ["SCANSEAL_SITE=/var/lib/scanseal"]
    assert given["WorkingDirectory"] == ["/var/lib/" + given["StateDirectory"][0]]
    assert given["Restart"] == ["on-failure"]
    # What a wrong setting, key or PIN ends with, and nothing that may be better in five seconds.
    assert given["RestartPreventExitStatus"] == [str(FixInput.exit_code)]
    assert FixInput.exit_code not in (TryLater.exit_code, Stop.exit_code)
    assert given["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    # The workers are told by the agent: systemd must not tell them first.
    assert given["KillMode"] == ["mixed"]
    assert "WatchdogSec" not in given


# ---- the container --------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Containerfile, in order."""
    lines = (OPERATIONS / "Containerfile").read_text().splitlines()
    found = [line.partition(" ")[::2] for line in lines if line and not line.startswith("#")]
    assert {name for name, _ in found} >= {"FROM", "COPY", "RUN", "USER", "HEALTHCHECK", "ENTRYPOINT"}
    return found


def copied() -> list[tuple[str, str]]:
    """(source, target) of what is copied from the repository."""
    pairs = []
    for name, arguments in instructions():
        if name == "COPY" and not arguments.startswith("--from"):
            *sources, target = arguments.split()
            pairs += [(source, target) for source in sources]
    return pairs


def test_every_file_that_the_container_copies_is_there_and_every_list_that_it_installs_is_copied():
    sources = [source for source, _ in copied()]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    locks = {word for name, arguments in instructions() if name == "RUN" for word in re.findall(r"-r (\S+)", arguments)}
    assert locks == {Path(source).name for source in sources if source.endswith(".lock")} == {"build.lock", "run.lock"}


def test_what_the_container_copies_is_all_that_the_program_needs(tmp_path):
    for source, target in copied():
        place = tmp_path / target / (Path(source).name if target == "./" else "")
        (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, place)
    script = (
        "import detector.assessment, ledger.cli.app, ledger.wiring.agent, ledger.wiring.assembly_anchoring\n"
        "from ledger.wiring.assembly_agent import template\n"
        "print(ledger.cli.app.__file__, len(template()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.stdout.startswith(str(tmp_path)), done.stderr
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())
    assert (tmp_path / project["project"]["readme"]).is_file()
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["ledger", "detector"]
    assert project["project"]["scripts"] == {"scanseal": "ledger.cli.__main__:main"}


def test_the_container_is_not_root_ends_on_sigterm_and_asks_how_the_agent_is():
    given = dict(instructions())
    assert given["USER"] == "10001"
    assert [name for name, _ in instructions()].index("USER") > max(
        index for index, (name, _) in enumerate(instructions()) if name == "RUN"
    )
    assert given["STOPSIGNAL"] == "SIGTERM"
    assert "http://127.0.0.1:9104/healthz" in given["HEALTHCHECK"]
    assert (given["ENTRYPOINT"], given["CMD"]) == ('["scanseal"]', '["agent", "run"]')
    bases = [arguments.split()[0] for name, arguments in instructions() if name == "FROM"]
    assert all(re.fullmatch(r"python:3\.\d+-slim-\w+", base) for base in bases)


@pytest.mark.parametrize("health", ["well", "ill", "gone"])
def test_the_containers_health_check_says_what_the_agent_says(health: str):
    """The command as it stands in the Containerfile, against a port that answers as the agent does."""
    import json
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if health == "well" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    port = server.server_address[1]
    if health == "gone":
        server.server_close()
    else:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    _, _, command = dict(instructions())["HEALTHCHECK"].partition("CMD ")
    program, *arguments = json.loads(command.replace("9104", str(port)))
    assert program == "python"
    done = subprocess.run([sys.executable, *arguments], capture_output=True)
    if health != "gone":
        server.shutdown()
        server.server_close()
    assert (done.returncode == 0) == (health == "well")


# ---- what is installed ----------------------------------------------------------------------------------------------


def pinned(lock: str) -> dict[str, str]:
    lines = [line.partition(";")[0].strip() for line in (ROOT / "requirements" / lock).read_text().splitlines()]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+", line) for line in lines), lock
    return {re.sub(r"[._]", "-", name.lower()): version for name, _, version in (line.partition("==") for line in lines)}


def test_everything_that_the_package_depends_on_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = {re.split(r"[<>=;\[ ]", one, maxsplit=1)[0].lower() for one in project["project"]["dependencies"]}
    assert sorted(named - set(pinned("run.lock"))) == []
    assert set(pinned("run.lock").items()) <= set(pinned("dev.lock").items())
    assert {re.split(r"[<>= ]", one, maxsplit=1)[0] for one in project["build-system"]["requires"]} <= set(pinned("build.lock"))
