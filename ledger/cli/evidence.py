"""`bundle`, `log`, `renew`: evidence out of a site's store, for others to verify."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from ledger.cli.output import OUT, moment, plain, progress, styled, table, write_json
from ledger.cli.verifying import JsonOption, Paths, SiteOption, listed
from ledger.core.errors import FixInput
from ledger.wiring import assembly, assembly_renewal

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
    paths: Paths,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A folder for the renewed bundles; for one bundle, a file will do.")
    ],
    bundle: Annotated[
        list[Path] | None, typer.Option("--bundle", help="Their evidence: a bundle, or a folder (default: beside the images).")
    ] = None,
    hash_name: Annotated[str, typer.Option("--hash", help="The newer hash: blake3.")] = "blake3",
    timeout: Annotated[int, typer.Option(help="Seconds to wait until the batch is final; the next run goes on.", min=1)] = 600,
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Carry old evidence to a newer hash before SHA-256 falls, and anchor that: one transaction a run, whoever sealed it.

    Each image is verified first, and only evidence that is in order is renewed. Safe to repeat: what is renewed is left alone.
    Exit codes: 0 done, 4 anchored but not final yet, else that of the worst image that was not renewed.

    Example: [bold]scanseal renew study/ --bundle evidence/ -o renewed/[/bold]
    """
    if hash_name != "blake3":
        raise FixInput(f"--hash {hash_name}: there is blake3")
    named = list(listed(paths))
    files = assembly_renewal.renewal_files(bundle or [], named, output)
    with ExitStack() as stack:
        renewing = stack.enter_context(assembly_renewal.renewing(site))
        advance = stack.enter_context(progress("renewing", None, quiet=json))
        report = renewing.renew(assembly.images(named), files, timeout, advance)
    if not report.rows:
        raise FixInput("no images there: name files or folders with DICOM images")
    if json:
        write_json(report.as_json())
    else:
        counts = Counter(renewed for _, _, renewed in report.rows)
        OUT.print(f"{counts['now']} renewed, {counts['before']} renewed before, {counts[None]} not renewed", end="")
        OUT.print(f"; {report.records} records in block {report.block}" if report.block is not None else "")
        for path, verdict, renewed in report.rows:
            if renewed is None:
                OUT.print(f"  {styled(verdict.token)}  {plain(path)}: {plain('; '.join(verdict.reasons))}")
        if report.reached:
            OUT.print(f"wrote {report.files} file(s) to {plain(str(output))}")
        else:
            OUT.print("the batch is on chain and not final yet, nothing was written: run the same command again later")
    raise typer.Exit(report.exit_code)
