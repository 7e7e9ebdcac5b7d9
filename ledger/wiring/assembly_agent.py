"""What the agent's commands need, built."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

from ledger.wiring import site as sites

SETTINGS = "agent.toml"


def run(site: Path | None, config: Path | None) -> None:
    """Runs the agent until a signal ends it."""
    from ledger.agent.settings import read_settings
    from ledger.wiring.agent import agent

    here = sites.open_site(site)
    settings = read_settings(config or here.folder / SETTINGS)
    with agent(here, settings) as running:

        def end(*_: Any) -> None:
            running.agent.stopping.set()

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, end)
            signal.signal(signal.SIGINT, end)
        running.agent.run()
