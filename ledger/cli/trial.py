"""`trial` and `transmittal`: what a visit contains, and what leaves the site."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from ledger.cli.custody import KeyOption, warn
from ledger.cli.output import OUT, plain, progress, write_json
from ledger.cli.verifying import JsonOption, SiteOption, listed
from ledger.wiring import assembly, assembly_trials

trial_app = typer.Typer(help="A trial at this site: the visits it expects, and what each contains.", no_args_is_help=True)
transmittal_app = typer.Typer(help="What leaves the site: a signed, closed list with its evidence.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(trial_app, name="trial", rich_help_panel="Trials")
    app.add_typer(transmittal_app, name="transmittal", rich_help_panel="Trials")


@trial_app.command("new")
def trial_new(
    name: Annotated[str, typer.Argument(help="The trial's short name, such as ABC-301.")],
    protocol: Annotated[
        Path | None, typer.Option("--protocol", help="Expected visits, CSV or JSON: subject, visit, due, minimum_images ...")
    ] = None,
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Set a trial up at this site, with the visits that its protocol expects.

    Example: [bold]scanseal trial new ABC-301 --protocol visits.csv[/bold]
    """
    made = assembly_trials.new_trial(site, name, protocol)
    if json:
        write_json(made)
        return
    OUT.print(f"trial {plain(name)}: {made['expected_visits']} expected visits, in {plain(str(made['folder']))}")
    OUT.print(f"next: [bold]scanseal trial visit {plain(name)} IMAGES --subject S01 --visit V1 --device KEY[/bold]")


@trial_app.command("visit")
def trial_visit(
    trial: Annotated[str, typer.Argument(help="The trial.")],
    subject: Annotated[str, typer.Option("--subject", help="The subject's code in the trial, never a name.")],
    visit: Annotated[str, typer.Option("--visit", help="The visit, as the protocol calls it.")],
    device: KeyOption,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[PATHS...]", help="The images that are sent; none: there are none.")
    ] = None,
    withhold: Annotated[
        list[str] | None, typer.Option("--withhold", help="An image that exists and is not sent. Repeatable.")
    ] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why images are withheld, or there are none.")] = None,
    account: Annotated[
        list[str] | None, typer.Option("--account", help="A device that made nothing for this visit: account for it, too.")
    ] = None,
    others: Annotated[
        str | None,
        typer.Option("--others", help="Counters of a device that are not of this trial: 'all', or DEVICE:3,7-9;DEVICE:4."),
    ] = None,
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Sign the closed list of a visit: its images, those that are withheld, or that there are none.

    The list accounts for the counters of the devices: what a device signed since the trial's last list must be listed, or be
    said to be of --others. A counter that is left out shows in every audit as WITHHELD.

    Example: [bold]scanseal trial visit ABC-301 out/S01 --subject S01 --visit V1 --device gateway --others all[/bold]
    """
    with ExitStack() as stack:
        visits = stack.enter_context(assembly_trials.visits(site, trial, device))
        warn(visits.warning)
        drawn = visits.draw(
            subject,
            visit,
            assembly.images(listed(paths or [])),
            assembly.images(withhold or []),
            reason=reason,
            devices=account or [],
            others=assembly_trials.others_of(others),
        )
    if json:
        write_json(
            {
                "manifest": str(drawn.path),
                "entries": drawn.digest.count,
                "record_id": "0x" + drawn.receipt.record_id.hex(),
                "unaccounted": drawn.unaccounted,
            }
        )
        return
    OUT.print(f"{plain(subject)} {plain(visit)}: {drawn.digest.count} entries, signed in {plain(str(drawn.path))}")
    for name, counters in drawn.unaccounted.items():
        left = f"counters {spans(counters)} of {name}"
        warn(f"{left} are accounted for nowhere: audits will say WITHHELD (see --others and --withhold)")
    OUT.print("next: [bold]scanseal anchor[/bold], and [bold]scanseal transmittal create[/bold] when the visits are complete")


@trial_app.command("heartbeat")
def trial_heartbeat(
    trial: Annotated[str, typer.Argument(help="The trial.")],
    device: KeyOption,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[PATHS...]", help="Images that were made for one visit of the trial.")
    ] = None,
    subject: Annotated[str | None, typer.Option("--subject", help="The images' subject, as the trial codes it.")] = None,
    visit: Annotated[str | None, typer.Option("--visit", help="The images' visit.")] = None,
    account: Annotated[
        list[str] | None, typer.Option("--account", help="Whose counters are told (default: the signing key's). Repeatable.")
    ] = None,
    others: Annotated[
        str | None, typer.Option("--others", help="Counters that are not of this trial: 'all', or DEVICE:3,7-9;DEVICE:4.")
    ] = None,
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Sign what a device made since its last heartbeat: zero or more images, told by their counters.

    Sent to the auditor at regular times, on its own way: every counter in it must then be found in some visit's list, so that
    a visit nobody ever listed shows as WITHHELD.

    Example: [bold]scanseal trial heartbeat ABC-301 --device ct1[/bold]
    """
    images = assembly.images(listed(paths or []))
    made = assembly_trials.heartbeat(site, trial, device, images, (subject, visit), account or [], others)
    warn(made.pop("warning"))
    if json:
        write_json(made)
        return
    for name, counters in made["counters"].items():
        OUT.print(f"{plain(name)} made {len(counters)} images that visits must list: counters {spans(counters)}")
    if not made["counters"]:
        OUT.print("no images that a visit must list")
    folder = plain(made["folder"])
    OUT.print(f"signed in {folder}")
    OUT.print(f"next: [bold]scanseal anchor[/bold], [bold]scanseal transmittal export {folder}[/bold], and send that folder")
    OUT.print(f"at the auditor's: [bold]scanseal audit run ... --also {folder}[/bold]")


def spans(counters: list[int], limit: int = 10) -> str:
    """Ascending counters in a few words: 3-7, 9."""
    parts: list[list[int]] = []
    for counter in counters:
        if parts and counter == parts[-1][-1] + 1:
            parts[-1][1:] = [counter]
        else:
            parts.append([counter])
    return ", ".join("-".join(map(str, part)) for part in parts[:limit]) + (" ..." if len(parts) > limit else "")


@transmittal_app.command("create")
def transmittal_create(
    trial: Annotated[str, typer.Argument(help="The trial.")],
    output: Annotated[Path, typer.Argument(help="A folder for the list and its evidence.")],
    visit: Annotated[
        list[Path] | None, typer.Option("--visit", help="A visit's manifest (default: all of the trial's). Repeatable.")
    ] = None,
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Draw up the list of what leaves the site: all visits of a trial, or those that are named.

    Example: [bold]scanseal transmittal create ABC-301 transmittal-1[/bold]
    """
    described = assembly_trials.create_transmittal(site, trial, output, visit or [])
    if json:
        write_json(described)
        return
    OUT.print(f"{described['entries']} entries in {plain(str(described['manifest']))}")
    OUT.print(f"next: [bold]scanseal transmittal sign {plain(str(output))} --device KEY[/bold]")


@transmittal_app.command("sign")
def transmittal_sign(
    folder: Annotated[Path, typer.Argument(help="The transmittal's folder.")],
    device: KeyOption,
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Close the list: sign it with a key that holds the images. Signing twice changes nothing.

    Example: [bold]scanseal transmittal sign transmittal-1 --device gateway[/bold]
    """
    signed = assembly_trials.sign_transmittal(site, folder, device)
    warn(signed.pop("warning"))
    if json:
        write_json(signed)
        return
    OUT.print(f"signed {signed['entries']} entries, record {signed['record_id']}")
    OUT.print(f"next: [bold]scanseal anchor[/bold], then [bold]scanseal transmittal export {plain(str(folder))}[/bold]")


@transmittal_app.command("export")
def transmittal_export(
    folder: Annotated[Path, typer.Argument(help="The transmittal's folder.")],
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Write the evidence of a signed list beside it: of its images, and of the list itself with its approvals.

    Example: [bold]scanseal transmittal export transmittal-1[/bold]
    """
    with ExitStack() as stack:
        advance = stack.enter_context(progress("exporting", None, quiet=json))
        written = assembly_trials.export_transmittal(site, folder, advance)
    if json:
        write_json(written)
        return
    OUT.print(f"wrote the evidence of {written['images']} images to {plain(str(folder / 'evidence'))}")
    if written["pending"]:
        OUT.print(f"  {written['pending']} records are not final on chain yet: [bold]scanseal anchor[/bold], then export again")
    OUT.print(f"next, at the auditor's: [bold]scanseal audit run -m {plain(str(folder))} -i IMAGES --trust trust.toml[/bold]")


@transmittal_app.command("verify")
def transmittal_verify(
    folder: Annotated[Path, typer.Argument(help="The transmittal's folder, with its evidence.")],
    images: Annotated[list[Path], typer.Option("--images", help="Where the images are. Repeatable.")],
    trust: Annotated[Path | None, typer.Option("--trust", help="The trust file (default: the site's).")] = None,
    protocol: Annotated[Path | None, typer.Option("--protocol", help="The expected visits, CSV or JSON.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no one: the trust file alone decides.")] = False,
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Say whether a transmittal is COMPLETE, INCOMPLETE, UNEXPECTED, WITHHELD or OPEN. Keeps nothing; `audit run` does.

    Exit codes: 0 COMPLETE, 5 the others; 1, 6, 7, 9 as `scanseal verify`, the worst counts.

    Example: [bold]scanseal transmittal verify transmittal-1 --images received --trust trust.toml --offline[/bold]
    """
    from ledger.cli.audit import audited

    audited(folder, images, trust, None, protocol, [], [], None, offline, site, json)
