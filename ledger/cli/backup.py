"""`backup` and `restore`: a site as one file, while it runs, and a site of such a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ledger.cli.agent import ConfigOption
from ledger.cli.output import OUT, plain, write_json
from ledger.cli.verifying import JsonOption, SiteOption


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Agent and log node")(backup)
    app.command(rich_help_panel="Agent and log node")(restore)


def backup(
    out: Annotated[Path, typer.Argument(help="The backup's file: a new one, on another disk. Keep it as the images are kept.")],
    move: Annotated[
        bool, typer.Option("--move", help="To another machine: nothing is signed here any more, and the keys go on there.")
    ] = False,
    config: ConfigOption = None,
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Copy a site into one file, as of one moment, while its agent runs: keys, settings, store, and the images that wait.

    Passphrases and passwords are left out: whoever has both has the keys.

    Example: [bold]scanseal backup /mnt/backup/site-$(date +%F).tar[/bold]
    """
    from ledger.wiring import backup as backups

    made = backups.backup(site, out, config, move=move)
    if json:
        write_json(made.as_json())
        return
    OUT.print(f"{plain(str(made.path))}: {made.records} records, {made.log_size} in the log, {made.images} images that wait")
    for name in made.left_out:
        OUT.print(f"left out, keep it elsewhere: {plain(name)}")
    if move:
        OUT.print("[bold]nothing is signed here any more[/bold]: restore it on the other machine, once")


def restore(
    archive: Annotated[Path, typer.Argument(metavar="BACKUP", help="A file that `scanseal backup` made.")],
    folder: Annotated[Path, typer.Argument(help="The site's new folder.")],
    log_mirror: Annotated[
        Path | None, typer.Option("--log-mirror", help="A mirror of the log, which has what came after the backup.")
    ] = None,
    evidence_only: Annotated[
        bool, typer.Option("--evidence-only", help="Without keys: to show evidence, and to sign and anchor nothing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Make a site of a backup, in a new folder, after asking the chain whether its log can go on from there.

    Its keys sign nothing more, since what they signed after the backup is not known: rotate them, then go on.

    Exit codes: 0 restored, 2 the backup is not whole or too old, 6 the chain does not answer (nothing was restored).

    Example: [bold]scanseal restore /mnt/backup/site-2026-01-31.tar /srv/scanseal --log-mirror /mnt/mirror[/bold]
    """
    from ledger.wiring import backup as backups

    made = backups.restore(archive, folder, log_mirror, evidence_only=evidence_only)
    if json:
        write_json(made.as_json())
        return
    OUT.print(f"{plain(str(made.folder))} is as of {made.made}: {made.records} records, {made.log_size} in the log")
    if made.added:
        OUT.print(f"{made.added} records of the log came from the mirror; what opens them is lost with the old store")
    for name in made.left_out:
        OUT.print(f"put it back: {plain(name)}")
    if made.barred:
        OUT.print(f"these keys sign nothing more: {plain(', '.join(made.barred))}")
        OUT.print("next: [bold]scanseal anchor[/bold], [bold]scanseal device rotate NAME NEW[/bold], and NEW in agent.toml")
