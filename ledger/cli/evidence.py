"""`bundle` and `log`: evidence out of a site's store, for others to verify."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from ledger.cli.output import OUT, moment, plain, progress, table, write_json
from ledger.cli.verifying import JsonOption, SiteOption, listed
from ledger.core.errors import FixInput
from ledger.wiring import assembly

bundle_app = typer.Typer(help="Evidence bundles: all that a verifier needs beside the image.", no_args_is_help=True)
log_app = typer.Typer(help="The transparency log: mirror it, check a mirror.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(bundle_app, name="bundle", rich_help_panel="Evidence")
    app.add_typer(log_app, name="log", rich_help_panel="Evidence")
    app.command(rich_help_panel="Evidence")(renew)


@bundle_app.command("export")
def bundle_export(
    paths: Annotated[list[str] | None, typer.Argument(metavar="[PATHS...]", help="Images; none for all sealed images.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A file (one bundle), or a folder (one bundle an image).")
    ] = Path("evidence.seal.json"),
    site: SiteOption = None,
    tiles: Annotated[
        bool, typer.Option("--tiles", help="With tile hashes, so that verifiers see where pixels changed.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Write the evidence of images to one bundle, or to one beside each. Bundles are for those who may see the images.

    Example: [bold]scanseal bundle export study/ -o study.seal.json[/bold]
    """
    with ExitStack() as stack:
        export = stack.enter_context(assembly.export(site))
        advance = stack.enter_context(progress("exporting", None, quiet=json))
        found = assembly.images(listed(paths)) if paths else None
        written = export.write(found, output, with_tiles=tiles, progress=advance)
    for path in written.missing:
        if not written.seals and "!/" not in path and not Path(path).exists():
            raise FixInput(f"{path}: no such file")
    if not written.seals:
        raise FixInput("none of these images is sealed here: `scanseal seal` first")
    if json:
        write_json(written.as_json())
        return
    OUT.print(f"wrote {written.seals} seals to {written.files} file(s), {written.size:,} bytes", end="")
    OUT.print(f" ({written.size / written.seals:,.0f} an image)")
    if written.pending:
        OUT.print(f"  {written.pending} of them are not final on chain yet: run `scanseal anchor`, then export again")
    for path in written.missing:
        OUT.print(f"  not sealed here: {plain(path)}")


@bundle_app.command("inspect")
def bundle_inspect(file: Annotated[Path, typer.Argument(help="A *.seal.json file.")], json: JsonOption = False) -> None:
    """Show what a bundle holds: ledger, devices, seals, anchors. It proves nothing; `scanseal verify` does.

    Example: [bold]scanseal bundle inspect study.seal.json[/bold]
    """
    described = assembly.describe_bundle(file)
    if json:
        write_json(described)
        return
    OUT.print(f"chain {described['chain_id']}, log {plain(described['origin'])}, {described['bytes']:,} bytes")
    for device in described["devices"]:
        OUT.print(f"device {plain(device)}")
    anchors = table("anchor", "records before", "block", "time")
    for row in described["anchors"]:
        anchors.add_row(str(row["size"]), str(row["old_size"]), str(row["block_number"]), moment(row["block_time"]))
    OUT.print(anchors)
    OUT.print(
        f"{len(described['seals'])} seals, {sum(1 for row in described['seals'] if row['anchor'] is None)} of them pending"
    )


@log_app.command("export")
def log_export(
    folder: Annotated[Path, typer.Argument(help="Where the static mirror goes.")],
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Write the log as a static mirror (C2SP tlog-tiles): any web server can serve it. Repeatable, writes what is new.

    Example: [bold]scanseal log export /srv/log[/bold]
    """
    with assembly.site_log(site) as log:
        checkpoint = log.export(folder)
    if json:
        write_json({"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex(), "folder": str(folder)})
    else:
        OUT.print(f"{plain(str(folder))}: {checkpoint.size} records of {plain(checkpoint.origin)}")


@log_app.command("check")
def log_check(
    folder: Annotated[Path | None, typer.Argument(help="A mirror; without one the site's own log.")] = None,
    site: SiteOption = None,
    trust: Annotated[Path | None, typer.Option("--trust", help="The trust file that names the log and its key.")] = None,
    json: JsonOption = False,
) -> None:
    """Recompute a whole log: entries to tiles, tiles to root, root to the signed checkpoint.

    Example: [bold]scanseal log check /srv/log --trust trust.toml[/bold]
    """
    checkpoint = assembly.check_log(folder, site, trust)
    if json:
        write_json({"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex(), "ok": True})
    else:
        OUT.print(f"in order: {checkpoint.size} records of {plain(checkpoint.origin)} lead to the signed root")


def renew(
    paths: Annotated[list[str], typer.Argument(metavar="PATHS...", help="The images: they are read again.")],
    bundle: Annotated[list[Path], typer.Option("--bundle", help="Their evidence: a bundle, or a folder of them. Repeatable.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder for the renewed bundles.")],
    timeout: Annotated[int, typer.Option(help="Seconds to wait until the renewal is final.", min=1)] = 600,
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Carry old evidence to a newer hash (BLAKE3) before the old one falls, and anchor that. Repeatable.

    Each image is verified first, and only evidence that is in order now is renewed. Verifiers need this site's trust file anew:
    it names the renewal log. Exit code 7 where an image was not renewed.

    Example: [bold]scanseal renew study/ --bundle evidence/ -o renewed/[/bold]
    """
    with ExitStack() as stack:
        advance = stack.enter_context(progress("renewing", None, quiet=json))
        done = assembly.renew(site, bundle, listed(paths), output, timeout, advance)
    if json:
        rows = [{"path": path, "error": error} for path, error in done.refused]
        write_json({"renewed": done.renewed, "already_renewed": done.before, "refused": rows, "block": done.block})
    else:
        OUT.print(f"renewed {done.renewed}, already renewed {done.before}, refused {len(done.refused)}")
        for path, error in done.refused:
            OUT.print(f"  {plain(path)}: {plain(error)}")
        if done.renewed:
            OUT.print(f"wrote {done.files} bundles to {plain(str(output))}; give verifiers this site's trust file again")
    if done.refused:
        raise typer.Exit(7)
