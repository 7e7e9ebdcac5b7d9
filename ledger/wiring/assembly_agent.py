"""What the agent's commands need, built."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.core.errors import FixInput
from ledger.wiring import site as sites

if TYPE_CHECKING:
    from ledger.agent.settings import Settings

LOG = logging.getLogger(__name__)
SETTINGS = "agent.toml"


def run(site: Path | None, config: Path | None) -> None:
    """Runs the agent until a signal ends it, or has it begin again with new settings (SIGHUP)."""
    from ledger.agent.settings import read_settings
    from ledger.wiring import logs
    from ledger.wiring.agent import agent

    here = sites.open_site(site)
    path = config or here.folder / SETTINGS
    settings = read_settings(path)
    logs.configure()
    again = threading.Event()
    while True:
        again.clear()
        with agent(here, settings) as running:
            _obey_signals(running.agent.stopping, again)
            running.agent.run()
        if not again.is_set():
            return
        settings = _newest(path, settings)


def _obey_signals(stopping: threading.Event, again: threading.Event) -> None:
    def end(number: int, _: Any) -> None:
        if number == signal.SIGHUP:
            again.set()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)


def _newest(path: Path, before: Settings) -> Settings:
    """The settings as they are now; those from before where they are wrong: a slip of the pen stops no modality."""
    from ledger.agent.settings import read_settings

    try:
        return read_settings(path)
    except FixInput as error:
        LOG.error("settings refused, the old ones stay", extra={"reason": str(error)})
        return before
