"""`fingerprint`: the fixed patterns of devices, enrolled from their sealed images; `scanseal detect` compares with them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from ledger.cli.output import OUT, plain, progress, table, write_json
from ledger.cli.verifying import BundleOption, JsonOption, OfflineOption, Paths, SiteOption, TrustOption, listed
from ledger.core.errors import FixInput
from ledger.wiring import assembly
from ledger.wiring import site as sites

fingerprint_app = typer.Typer(
    help="Devices' fixed patterns, for `detect`: does an image look like the device that it claims?", no_args_is_help=True
)

FingerprintsOption = Annotated[
    Path | None, typer.Option("--fingerprints", metavar="DIR", help="The folder of fingerprints (default: the site's).")
]


def register(app: typer.Typer) -> None:
    app.add_typer(fingerprint_app, name="fingerprint", rich_help_panel="Verify")


@fingerprint_app.command("enrol")
def fingerprint_enrol(
    paths: Paths,
    others: Annotated[
        list[str] | None,
        typer.Option("--others", metavar="PATH", help="Images of other devices, for the rate of false matches. Repeatable."),
    ] = None,
    unsealed: Annotated[
        bool, typer.Option("--unsealed", help="Take images whose device is only claimed; the fingerprint says so.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Make the fingerprint of an enrolled device anew.")] = False,
    fingerprints: FingerprintsOption = None,
    site: SiteOption = None,
    trust: TrustOption = None,
    bundle: BundleOption = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
) -> None:
    """Make the fingerprint of a device from 16 or more of its images, all of one size; 50 are better.

    They must be AUTHENTIC and claim one and the same device. It is measured whether the pattern is found in each image when
    that one is left out; where it isn't, the fingerprint makes no claims, and that is said. A panel that is calibrated anew
    gets another pattern: enrol it again, from images made since.

    Example: [bold]scanseal fingerprint enrol sealed/room3/ --others sealed/room4/[/bold]
    """
    from ledger.wiring.fingerprints import Fingerprints

    known = Fingerprints(_folder(fingerprints, site))
    with ExitStack() as stack:
        verifier = None
        if not unsealed:
            verifier = stack.enter_context(assembly.verifier(site, trust, bundle or [], offline=offline))
        advance = stack.enter_context(progress("enrolling", None, quiet=json))
        images, foreign = assembly.images(listed(paths)), assembly.images(others or [])
        made = known.enrol(images, verifier, foreign, replace=replace, advance=advance)
    if json:
        write_json(made.as_json())
        return
    proven = "sealed" if made.sealed else "[yellow]unsealed[/yellow]"
    OUT.print(f"enrolled a device from {made.images} {proven} images of {made.size[1]} x {made.size[0]} pixels")
    OUT.print(f"[dim]{plain(str(made.file))}: keep it to yourself, whoever has it can imitate the pattern[/dim]")
    for path in made.unlike:
        OUT.print(f"[yellow]{plain(path)} does not have the pattern of the others[/yellow]")
    if made.refusal is not None:
        OUT.print(f"[yellow]it will make no claims: {plain(made.refusal)}[/yellow]")
    elif made.false_match_rate is None:
        OUT.print("[dim]how often other devices' images match was not measured: --others takes some[/dim]")
    else:
        OUT.print(f"at most {made.false_match_rate:.1%} of other devices' images match, by {made.others} of them")


@fingerprint_app.command("list")
def fingerprint_list(fingerprints: FingerprintsOption = None, site: SiteOption = None, json: JsonOption = False) -> None:
    """List the devices that have a fingerprint, by the hash of what they call themselves.

    Example: [bold]scanseal fingerprint list[/bold]
    """
    from ledger.wiring.fingerprints import Fingerprints

    rows: list[dict[str, Any]] = []
    for device, known in Fingerprints(_folder(fingerprints, site)).listed():
        if isinstance(known, str):
            rows.append({"device": device, "images": None, "sealed": None, "distinctive": False, "refusal": known})
        else:
            count = len(known.strengths)
            rows.append(
                {
                    "device": device,
                    "images": count,
                    "sealed": known.sealed,
                    "distinctive": known.distinctive,
                    "refusal": known.refusal,
                }
            )
    if json:
        write_json({"fingerprints": rows})
        return
    shown = table("device", "images", "sealed", "claims")
    for row in rows:
        shown.add_row(
            plain(row["device"]),
            "-" if row["images"] is None else str(row["images"]),
            {True: "yes", False: "no", None: "-"}[row["sealed"]],
            plain(row["refusal"] or "yes"),
        )
    OUT.print(shown)


def _folder(given: Path | None, site: Path | None) -> Path:
    folder = folder_of(given, site)
    if folder is None:
        raise FixInput("no folder of fingerprints: name one with --fingerprints, or work in a site (--site)")
    return folder


def folder_of(given: Path | None, site: Path | None = None) -> Path | None:
    """The folder that was named, or that of the site; None without either."""
    from ledger.wiring.fingerprints import FOLDER

    if given is not None:
        return given
    here = sites.own(site)
    return None if here is None else here / FOLDER
