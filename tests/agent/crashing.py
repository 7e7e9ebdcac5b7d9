"""An agent that dies where a test says: `python -m tests.agent.crashing SITE ARMED`, or from a test, as `Mortal`.

It is the agent of `scanseal agent run` with a step function of its own, here and in its worker processes. Once the file ARMED
says `step:calls:scope`, the process that comes to that step for the so manieth time since then is killed: alone (`process`), or
with all of the agent (`group`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.journeys.agents import Agent, until
from tests.journeys.conftest import Site

CLEAN_EVERY_S = 0.5
_seen: Counter[str] = Counter()
_lock = threading.Lock()


@dataclass(frozen=True)
class Crash:
    """Called at each step; carried to the worker processes."""

    armed: Path

    def __call__(self, step: str) -> None:
        try:
            told = self.armed.read_text()
        except FileNotFoundError:
            return
        name, calls, scope = told.split(":")
        if name != step:
            return
        with _lock:
            _seen[told] += 1
            if _seen[told] < int(calls):
                return
            try:
                self.armed.unlink()
            except FileNotFoundError:  # another process was first
                return
        if scope == "group":
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


class Mortal(Agent):
    """The agent of a test's site, in a process group of its own."""

    def __init__(self, site: Site, settings: str = "", health: int | None = None) -> None:
        super().__init__(site, settings, health)
        self.armed = site.folder / "armed"

    def start(self, **environment: str) -> Mortal:
        command = [sys.executable, "-m", "tests.agent.crashing", str(self.site.folder), str(self.armed)]
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                command, stdout=errors, stderr=errors, start_new_session=True, env=os.environ | environment
            )
        until(self.answers, "the start of the agent")
        return self

    def arm(self, step: str, scope: str, calls: int = 1) -> None:
        part = self.armed.with_suffix(".part")
        part.write_text(f"{step}:{calls}:{scope}")
        part.replace(self.armed)

    def is_down(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def start_if_down(self) -> None:
        if self.is_down():
            self.start()

    def kill(self) -> None:
        """All of it, at once."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(20)

    def worker(self, name: str) -> int | None:
        """A worker's process id, None where it does not run."""
        return self.status()["workers"][name]["pid"]


def main(site: Path, armed: Path) -> None:
    from ledger.agent import agent as agents
    from ledger.agent.settings import read_settings
    from ledger.wiring import logs
    from ledger.wiring.agent import agent
    from ledger.wiring.site import read_site
    from tests.agent.crashing import Crash

    logs.configure()
    agents.CLEAN_EVERY_S = CLEAN_EVERY_S
    with agent(read_site(site), read_settings(site / "agent.toml"), Crash(armed)) as running:
        signal.signal(signal.SIGTERM, lambda *_: running.agent.stopping.set())
        running.agent.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
