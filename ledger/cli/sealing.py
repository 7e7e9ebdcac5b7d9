"""`seal` and `anchor`: what a device and its site do."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated, Any, Literal

import typer

from ledger.cli.output import ERR, OUT, plain, progress, table, write_json
from ledger.cli.verifying import JsonOption, Paths, SiteOption, left_out, listed
from ledger.core.errors import FixInput, Unreadable
from ledger.wiring import assembly

Wait = Literal["final", "included", "none"]


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Seal")(seal)
    app.command(rich_help_panel="Seal")(anchor)


def seal(
    paths: Paths,
    device: Annotated[str, typer.Option("--device", "-d", help="The device whose key seals (see `scanseal device list`).")],
    site: SiteOption = None,
    hash_name: Annotated[
        str, typer.Option("--hash", help="sha256, or blake3 where the CPU has no SHA instructions.")
    ] = "sha256",
    synthetic: Annotated[bool, typer.Option("--synthetic", help="Declare the images synthetic (role generate).")] = False,
    generator: Annotated[str | None, typer.Option("--generator", help="What generated them: a model with its version.")] = None,
    json: JsonOption = False,
) -> None:
    """Seal images: hash pixels and attributes, sign, and write the journal durably. Sealing twice changes nothing.

    Only for images that the device itself made, or with --synthetic for images that are nobody's. Files that cannot be read
    are named, the others are sealed all the same
    (exit code 7).

    Example: [bold]scanseal seal /data/today --device ct1[/bold]
    """
    if hash_name not in ("sha256", "blake3"):
        raise FixInput(f"--hash {hash_name}: use sha256 or blake3")
    if synthetic != (generator is not None) or (generator is not None and not (generator.strip() and generator.isprintable())):
        raise FixInput("--synthetic and --generator NAME go together: what generated the images, in one line")
    rows: list[dict[str, Any]] = []
    images = assembly.images(listed(paths))
    with ExitStack() as stack:
        sealing = stack.enter_context(assembly.sealing(site, device))
        if sealing.warning:
            ERR.print(f"[yellow]warning:[/yellow] {plain(sealing.warning)}")
        advance = stack.enter_context(progress("sealing", None, quiet=json))
        for count, outcome in enumerate(sealing.seal(images, hash_name, generator), 1):
            advance(count)
            row: dict[str, Any] = {"path": outcome.path, "error": outcome.error, "has_pixels": outcome.has_pixels}
            if outcome.receipt is not None:
                row |= {
                    "record_id": "0x" + outcome.receipt.record_id.hex(),
                    "counter": outcome.receipt.counter,
                    "new": outcome.receipt.is_new,
                    "profile": outcome.profile,
                }
            rows.append(row)
    new = sum(1 for row in rows if row.get("new"))
    failed = [row for row in rows if row["error"] and row["has_pixels"]]
    without_pixels = sum(1 for row in rows if not row["has_pixels"])
    if not rows:
        raise FixInput(f"no images there{left_out(images.skipped, 0)}: name files or folders with DICOM images")
    before = len(rows) - new - len(failed) - without_pixels
    if json:
        counts = {"sealed": new, "already_sealed": before, "failed": len(failed), "without_pixels": without_pixels}
        counts["skipped"] = images.skipped
        write_json(counts | {"images": rows})
    else:
        rest = left_out(images.skipped, without_pixels)
        OUT.print(f"sealed {new}, already sealed {before}, not sealed {len(failed)}{rest}")
        for row in failed:
            OUT.print(f"  {plain(row['path'])}: {plain(row['error'])}")
        raw = sum(1 for row in rows if str(row.get("profile", "")).startswith("raw1"))
        if raw:
            OUT.print(f"  {raw} sealed as raw1 (stored bytes only): `scanseal inspect` says why")
        if new:
            OUT.print("next: [bold]scanseal anchor[/bold]")
    if failed:
        raise typer.Exit(Unreadable.exit_code)


def anchor(
    site: SiteOption = None,
    wait: Annotated[Wait, typer.Option(help="How far to wait for the chain.")] = "final",
    timeout: Annotated[int, typer.Option(help="Seconds to wait; the next run goes on.", min=1)] = 600,
    publish_leaves: Annotated[
        bool, typer.Option("--publish-leaves", help="Put leaf hashes on chain (free-gas chains).")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Carry sealed records into the log and its checkpoint onto the chain. Safe to repeat, and after a re-org it anchors again.

    Exit codes: 0 done, 4 sent but not as far as --wait asks, 6 chain out of reach (nothing is lost: run it again).

    Example: [bold]scanseal anchor --wait final[/bold]
    """
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
