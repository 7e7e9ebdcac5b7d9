"""`seal`: what a device does."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated, Any

import typer

from ledger.cli.output import ERR, OUT, plain, progress, write_json
from ledger.cli.verifying import JsonOption, Paths, SiteOption, left_out, listed
from ledger.core.errors import FixInput, Unreadable
from ledger.wiring import assembly


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Seal")(seal)


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
