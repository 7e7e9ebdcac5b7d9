"""`agent`: the process beside a modality that receives, forwards and seals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ledger.cli.verifying import SiteOption
from ledger.wiring import assembly_agent

agent_app = typer.Typer(help="The process beside a modality: receives images, forwards them, seals them.", no_args_is_help=True)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="The agent's settings (default: agent.toml of the site).")
]


def register(app: typer.Typer) -> None:
    app.add_typer(agent_app, name="agent", rich_help_panel="Agent and log node")


@agent_app.command("run")
def agent_run(config: ConfigOption = None, site: SiteOption = None) -> None:
    """Receive, forward, seal and anchor until SIGTERM or Ctrl-C; SIGHUP reads the settings again.

    Example: [bold]scanseal agent run --site /srv/scanseal[/bold]
    """
    assembly_agent.run(site, config)
