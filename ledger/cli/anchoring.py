"""`anchor` and `log status`: from the journal into the log and onto the chain, once or for good, and how that stands."""

from __future__ import annotations

import json as jsonlib
import signal
import sys
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ledger.cli.evidence import log_app
from ledger.cli.output import OUT, iso, moment, plain, progress, table, write_json
from ledger.cli.verifying import JsonOption, SiteOption
from ledger.core.errors import FixInput, TryLater
from ledger.log.schedule import ether
from ledger.wiring import assembly, assembly_anchoring

if TYPE_CHECKING:
    from rich.table import Table

    from ledger.wiring.assembly_anchoring import Loop
    from ledger.wiring.standing import Status

Wait = Literal["final", "included", "none"]
LINE_S = 5.0
"""How often `--watch` looks whether there is something new to say."""


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Seal")(anchor)


def anchor(
    site: SiteOption = None,
    wait: Annotated[Wait, typer.Option(help="How far to wait for the chain.")] = "final",
    timeout: Annotated[int, typer.Option(help="Seconds to wait; the next run goes on.", min=1)] = 600,
    publish_leaves: Annotated[
        bool, typer.Option("--publish-leaves", help="Put leaf hashes on chain (free-gas chains).")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until stopped, as often and for as much as site.toml's \\[anchoring] says.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Carry sealed records into the log and its checkpoint onto the chain. Safe to repeat, and after a re-org it anchors again.

    Exit codes: 0 done, 4 sent but not as far as --wait asks, 6 chain out of reach (nothing is lost: run it again).

    Example: [bold]scanseal anchor --wait final[/bold]
    """
    if watch:
        if publish_leaves:
            raise FixInput("--watch anchors roots only: publish leaves with single runs of `scanseal anchor --publish-leaves`")
        with assembly_anchoring.carrying(site) as carrier:
            _watch(carrier, json=json)
        return
    with ExitStack() as stack:
        anchoring = stack.enter_context(assembly.anchoring(site))
        with progress("sequencing", anchoring.queued(), quiet=json) as advance:
            sequenced = anchoring.sequence(advance)
        status = anchoring.carry(wait=wait, timeout_s=timeout, publish_leaves=publish_leaves)
    if json:
        write_json({"sequenced": sequenced} | status.as_json())
    else:
        OUT.print(f"sequenced {sequenced} records; the log has {status.size}, the chain {status.anchored}")
        shown = table("anchor", "records", "state", "block", "gas", "gas/record")
        for row in status.new_rows:
            records = row.new_size - row.old_size
            gas = row.gas_used or 0
            shown.add_row(
                str(row.new_size), str(records), row.state, str(row.block_number or ""), f"{gas:,}", f"{gas / records:,.1f}"
            )
        if status.new_rows:
            OUT.print(shown)
        if not status.reached:
            OUT.print(f"not yet {wait}: run `scanseal anchor` again later")
    if not status.reached:
        raise typer.Exit(4)


def _watch(carrier: Loop, *, json: bool) -> None:
    """Runs the loop in the foreground until SIGINT or SIGTERM; a line for each change."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    loop = threading.Thread(target=carrier.run, args=(stop,), name="scanseal carrying")
    loop.start()
    said = None
    while not stop.wait(0 if said is None else LINE_S):
        try:
            status = carrier.status()
        except TryLater as error:
            said = said or ""
            OUT.print(f"cannot read the store: {plain(str(error))}") if not json else None
            continue
        line = jsonlib.dumps(_status_json(status)) if json else _line(status)
        if line != said:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            said = line
    loop.join()


def _line(status: Status) -> str:
    numbers = f"log {status.log_size}, on chain {status.anchored_size}, final {status.final_size}"
    spent = f"; spent today {ether(status.spent_today_wei)}" if status.node is None else ""
    queued = f", {status.queued} queued" if status.queued else ""
    alarms = "".join(f"; ALARM {alarm}" for alarm in status.alarms)
    error = f"; {status.last_error}" if status.last_error else ""
    return f"{numbers}{queued}; {status.doing}{spent}{error}{alarms}"


@log_app.command("status")
def log_status(site: SiteOption = None, json: JsonOption = False) -> None:
    """Show how far records are: queued, in the log, on chain, final; what anchoring costs, and how long the account lasts.

    Works while an agent or `scanseal anchor --watch` runs, and while the chain is out of reach.

    Example: [bold]scanseal log status[/bold]
    """
    status = assembly_anchoring.log_status(site)
    if json:
        write_json(_status_json(status))
        return
    shown = table("", "")
    shown.show_header = False
    shown.add_row("queued", str(status.queued))
    shown.add_row("in the log", str(status.log_size))
    shown.add_row("on chain", f"{status.anchored_size}, final {status.final_size}")
    shown.add_row("last anchor", "none yet" if status.last_anchor_at is None else moment(status.last_anchor_at))
    if status.node is None:
        _show_costs(shown, status)
    else:
        shown.add_row("log node", plain(status.node))
    OUT.print(shown)
    OUT.print(plain(status.doing))
    if status.last_error:
        OUT.print(f"[yellow]{plain(status.last_error)}[/yellow]")
    for alarm in status.alarms:
        OUT.print(f"[bold red]{plain(str(alarm))}[/bold red]")


def _show_costs(shown: Table, status: Status) -> None:
    ahead = status.forecast
    shown.add_row("spent today", ether(status.spent_today_wei))
    cost = "not known" if ahead.wei_per_day is None else ether(ahead.wei_per_day)
    over = ", more than the budget" if ahead.over_budget else ""
    shown.add_row("a day ahead", f"{ahead.anchors_per_day:.0f} anchors, {ahead.gas_per_day:,} gas, {cost}{over}")
    shown.add_row("account lasts", "not known" if ahead.days_left is None else f"{ahead.days_left:,.0f} days")


def _status_json(status: Status) -> dict[str, Any]:
    """Amounts as decimal text, since JSON readers round what is above 2**53."""
    value = status.as_json()
    value["last_anchor_at"] = iso(status.last_anchor_at)
    value["spent_today_wei"] = str(status.spent_today_wei)
    ahead = value["forecast"]
    ahead["wei_per_day"] = None if ahead["wei_per_day"] is None else str(ahead["wei_per_day"])
    ahead["next_anchor_at"] = None if ahead["next_anchor_at"] is None else iso(int(ahead["next_anchor_at"]))
    return value
