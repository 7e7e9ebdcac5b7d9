"""A running agent of a test's site, started and ended as a service manager does it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.journeys.conftest import SCANSEAL, Site, free_port
from tests.journeys.orthanc import Orthanc


def until(holds: Callable[[], Any], what: str = "it", patience_s: float = 60.0) -> Any:
    """What `holds` answers as soon as it is true."""
    deadline = time.monotonic() + patience_s
    while not (found := holds()):
        assert time.monotonic() < deadline, f"{what} did not happen in time"
        time.sleep(0.05)
    return found


class Agent:
    """`scanseal agent run` on a site, with its standard error in a file."""

    def __init__(self, site: Site, settings: str = "", health: int | None = None) -> None:
        self.site, self.health_port = site, health or free_port()
        self.config = site.folder / "agent.toml"
        self.errors = site.folder / "agent.err"
        if settings:
            self.configure(settings)
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, settings: str) -> None:
        self.config.write_text(f"[health]\nport = {self.health_port}\n\n{settings}")

    def start(self, **environment: str) -> Agent:
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [*SCANSEAL, "agent", "run", "--site", str(self.site.folder)],
                stdout=errors,
                stderr=errors,
                env=os.environ | environment,
            )
        until(self.answers, "the start of the agent")
        return self

    def answers(self) -> bool:
        return self.told() is not None

    def told(self) -> dict[str, Any] | None:
        """What it says of itself, once all of it runs."""
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        try:
            told = json.loads(self.get("/status")[1])
        except OSError:
            return None
        return told if told.get("started") else None

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def status(self) -> dict[str, Any]:
        """What it says of itself; it is silent for a moment while it takes new settings."""
        return until(self.told, "an answer")

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM, within_s: float = 60.0) -> int:
        """Ends it; its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(within_s)

    def log(self) -> str:
        return self.errors.read_text()

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log().splitlines()]


@contextmanager
def running(site: Site, settings: str, **environment: str) -> Iterator[Agent]:
    agent = Agent(site, settings).start(**environment)
    try:
        yield agent
    finally:
        if agent.process is not None and agent.process.poll() is None:
            agent.process.kill()
            agent.process.wait(20)


def dicom_source(name: str, port: int, device: str = "ct1", destination: str = "pacs") -> str:
    """A C-STORE source for storescu, which calls itself STORESCU."""
    return f"""
[[source]]
kind = "dicom"
name = "{name}"
role = "acquire"
device = "{device}"
port = {port}
destination = "{destination}"
allow = [{{ ae_title = "STORESCU", address = "127.0.0.1" }}]
"""


def destination(pacs: Orthanc | int, name: str = "pacs") -> str:
    port = pacs if isinstance(pacs, int) else pacs.dicom_port
    return f"""
[[destination]]
name = "{name}"
host = "127.0.0.1"
port = {port}
ae_title = "ORTHANC"
timeout_s = 10
"""


def store(port: int, *files: Path, calling: str = "STORESCU") -> subprocess.CompletedProcess[str]:
    """Sends files with DCMTK's storescu."""
    command = ["storescu", "-aec", "SCANSEAL", "-aet", calling, "127.0.0.1", str(port), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"TCP_NODELAY": "1"})
