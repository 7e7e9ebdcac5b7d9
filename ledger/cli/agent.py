"""`agent`: the process beside a modality that receives, forwards and seals; how it is, and what to fix."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ledger.cli.output import OUT, moment, plain, table, write_json
from ledger.cli.verifying import JsonOption, SiteOption
from ledger.wiring import assembly_agent

agent_app = typer.Typer(help="The process beside a modality: receives images, forwards them, seals them.", no_args_is_help=True)
NOT_WELL = 6
SENT = {"sent": "sent", "none": "to nobody", "unsendable": "no DICOM file"}

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="The agent's settings (default: agent.toml of the site).")
]


def register(app: typer.Typer) -> None:
    app.add_typer(agent_app, name="agent", rich_help_panel="Agent and log node")


@agent_app.command("init")
def agent_init(config: ConfigOption = None, site: SiteOption = None, json: JsonOption = False) -> None:
    """Write the settings to begin with: every one with its default and why. Never over existing ones.

    Example: [bold]scanseal agent init --site /srv/scanseal[/bold]
    """
    path = assembly_agent.write_template(site, config)
    if json:
        write_json({"settings": str(path)})
        return
    OUT.print(f"{plain(str(path))} is written: name your modality, its key and your PACS in it")
    OUT.print("then: [bold]scanseal agent check[/bold], [bold]scanseal agent doctor[/bold], [bold]scanseal agent run[/bold]")


@agent_app.command("check")
def agent_check(config: ConfigOption = None, site: SiteOption = None, json: JsonOption = False) -> None:
    """Read the settings and the files that they name, without running, and say what would run. Exit code 2 for a mistake.

    Example: [bold]scanseal agent check[/bold]
    """
    checked = assembly_agent.check(site, config)
    if json:
        write_json(checked.as_json())
        return
    for line in (*checked.sources, *checked.destinations):
        OUT.print(plain(line))
    for line in checked.warnings:
        OUT.print(f"[yellow]{plain(line)}[/yellow]")
    OUT.print(f"{plain(str(checked.path))} is in order")


@agent_app.command("run")
def agent_run(config: ConfigOption = None, site: SiteOption = None) -> None:
    """Receive, forward, seal and anchor until SIGTERM or Ctrl-C; SIGHUP reads the settings again.

    Example: [bold]scanseal agent run --site /srv/scanseal[/bold]
    """
    assembly_agent.run(site, config)


@agent_app.command("status")
def agent_status(config: ConfigOption = None, site: SiteOption = None, json: JsonOption = False) -> None:
    """Say how the agent is: what waits, what does not work, what needs somebody. Asks the running agent, else the store.

    Exit codes: 0 it runs and is well, 6 it does not or is not.

    Example: [bold]scanseal agent status[/bold]
    """
    told = assembly_agent.status(site, config)
    is_well = told["running"] and told["answers"] and told["well"]
    if json:
        write_json(told)
    else:
        _show(told)
    if not is_well:
        raise typer.Exit(NOT_WELL)


@agent_app.command("doctor")
def agent_doctor(
    config: ConfigOption = None,
    site: SiteOption = None,
    store_test: Annotated[
        bool, typer.Option("--store-test", help="Send each PACS a made-up image (patient SCANSEAL-TEST), which stays there.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Try everything that the agent needs, one by one, and say what to fix. May run beside the agent, and changes nothing.

    Exit codes: 0 all is well, 2 something must be fixed here, 6 something outside is down.

    Example: [bold]scanseal agent doctor[/bold]
    """
    from ledger.wiring import doctor

    examined = doctor.examine(site, config, store_test=store_test)
    if json:
        write_json(examined.as_json())
    else:
        shown = table("", "check", "")
        shown.show_header = False
        words = {"well": "[green]well[/green]", "fix": "[bold red]FIX[/bold red]", "down": "[bold yellow]DOWN[/bold yellow]"}
        for finding in examined.findings:
            todo = f"\n[bold]{plain(finding.todo)}[/bold]" if finding.todo else ""
            shown.add_row(words[finding.state], plain(finding.check), plain(finding.says) + todo)
        OUT.print(shown)
    raise typer.Exit(examined.exit_code)


def _show(told: dict[str, Any]) -> None:
    shown = table("", "")
    shown.show_header = False
    shown.add_row("agent", _state(told))
    if "forward" in told:
        ages = told["oldest_waiting_s"]
        shown.add_row("forwarding", _step(told["forward"], SENT, ages["forward"]))
        words = {"sealed": "sealed", "received": "received from elsewhere", "none": "without pixels", "refused": "refused"}
        shown.add_row("sealing", _step(told["seal"], words, ages["seal"]))
        spool = told["spool"]
        shown.add_row("spool", f"{spool['files']} files, {_size(spool['bytes'])}; {_size(spool['free_bytes'])} free")
    if anchoring := told.get("anchoring"):
        numbers = f"{anchoring['log_size']} records, {anchoring['anchored_size']} on chain, {anchoring['final_size']} final"
        queued = f", {anchoring['queued']} queued" if anchoring["queued"] else ""
        shown.add_row("log", plain(f"{numbers}{queued}; {anchoring['doing']}"))
        last = anchoring["last_anchor_at"]
        shown.add_row("last anchor", "none yet" if last is None else moment(last))
    for what, count in told.get("refused", {}).items():
        shown.add_row("refused", plain(f"{what} ({count} times)"))
    for part, why in told.get("troubles", {}).items():
        shown.add_row("[yellow]trouble[/yellow]", f"[yellow]{plain(f'{part}: {why}')}[/yellow]")
    for alarm in told.get("alarms", ()):
        shown.add_row("[bold red]ALARM[/bold red]", f"[bold red]{plain(alarm)}[/bold red]")
    OUT.print(shown)


def _state(told: dict[str, Any]) -> str:
    if not told["running"]:
        return "[bold red]does not run[/bold red]; this is what its store says"
    if not told["answers"]:
        return "[yellow]runs, and does not answer on its health port[/yellow]; this is what its store says"
    if told.get("started") is None:
        return "[yellow]starts[/yellow]"
    since = f"since {moment(int(told['started']))} (pid {told['pid']})"
    return f"[green]is well[/green], {since}" if told["well"] else f"[bold red]needs somebody[/bold red], {since}"


def _step(states: dict[str, int], words: dict[str, str], oldest_s: float | None) -> str:
    parts = [f"{states[state]} {word}" for state, word in words.items() if states.get(state)]
    if waiting := states.get("waiting"):
        parts.append(f"[yellow]{waiting} waiting[/yellow], the oldest for {_age(oldest_s or 0.0)}")
    return ", ".join(parts) or "nothing yet"


def _age(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _size(count: int) -> str:
    for unit, length in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 1000)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} bytes"
