"""`custody`, `derive`, `esign`: what happens to an image after it was sealed, and who answers for it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from ledger.cli.output import ERR, OUT, custody_json, iso, moment, plain, progress, table, write_json
from ledger.cli.verifying import BundleOption, JsonOption, OfflineOption, Paths, SiteOption, TrustOption, listed
from ledger.core.errors import FixInput, Unreadable
from ledger.wiring import assembly, assembly_custody

custody_app = typer.Typer(help="What happened to an image since it was sealed, step by step.", no_args_is_help=True)

KeyOption = Annotated[str, typer.Option("--device", "-d", help="Whose key signs: a name of `scanseal device list`.")]

INCOMPLETE = 5


def register(app: typer.Typer) -> None:
    app.add_typer(custody_app, name="custody", rich_help_panel="Custody")
    app.command(rich_help_panel="Custody")(derive)
    app.command(rich_help_panel="Custody")(esign)
    app.command(rich_help_panel="Custody")(redact)


@custody_app.command("add")
def custody_add(
    paths: Paths,
    action: Annotated[
        str,
        typer.Option(
            "--action", "-a", help="received, transferred, stored, exported, read; held: of unknown origin.", show_default=False
        ),
    ],
    device: KeyOption,
    to: Annotated[str | None, typer.Option("--to", help="transferred: the next holder's key, by name or 0x...")] = None,
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Sign a step that leaves the images as they are: linked to the newest step of each, in the same log.

    A hand-over is two steps: the holder signs `transferred --to NEXT`, the next holder counter-signs `received`. `held` is for
    images of which no record is known: it proves since when they are what they are, and gives them no origin.

    Example: [bold]scanseal custody add study/ --action transferred --to cro --device pacs[/bold]
    """
    with ExitStack() as stack:
        custody = stack.enter_context(assembly_custody.custody(site, device))
        found = assembly.images(listed(paths))
        if action == "held":
            if to is not None:
                raise FixInput("--to is for transferred, not for held")
            outcomes = custody.hold(found)
        else:
            outcomes = custody.add(found, assembly_custody.step_statement(site, action, to))
        warn(custody.warning)
        advance = stack.enter_context(progress(action, None, quiet=json))
        rows: list[dict[str, Any]] = []
        for count, outcome in enumerate(outcomes, 1):
            advance(count)
            if outcome.has_pixels:
                record_id = None if outcome.receipt is None else "0x" + outcome.receipt.record_id.hex()
                rows.append({"path": outcome.path, "error": outcome.error, "record_id": record_id})
    _report(rows, action, json)


def _report(rows: list[dict[str, Any]], what: str, json: bool) -> None:
    """How many were signed, and which were not and why; exit code 7 where one was not."""
    if not rows:
        raise FixInput("no images there: name files or folders with DICOM images")
    failed = [row for row in rows if row["error"]]
    if json:
        write_json({"signed": len(rows) - len(failed), "failed": len(failed), "images": rows})
    else:
        OUT.print(f"{plain(what)}: signed {len(rows) - len(failed)}, not signed {len(failed)}")
        for row in failed:
            OUT.print(f"  {plain(row['path'])}: {plain(row['error'])}")
        if len(failed) < len(rows):
            OUT.print("next: [bold]scanseal anchor[/bold]")
    if failed:
        raise typer.Exit(Unreadable.exit_code)


def warn(warning: str | None) -> None:
    if warning:
        ERR.print(f"[yellow]warning:[/yellow] {plain(warning)}")


@custody_app.command("show")
def custody_show(
    paths: Paths,
    site: SiteOption = None,
    trust: TrustOption = None,
    bundle: BundleOption = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
) -> None:
    """Show the way of images: each step, by whom, when (claimed, and between which blocks), and what is wrong with it.

    Example: [bold]scanseal custody show scan.dcm[/bold]
    """
    _custody(paths, site, trust, bundle, offline, json)


@custody_app.command("verify")
def custody_verify(
    paths: Paths,
    site: SiteOption = None,
    trust: TrustOption = None,
    bundle: BundleOption = None,
    offline: OfflineOption = False,
    parent: Annotated[
        Path | None, typer.Option("--parent", help="The image it was made from: recompute what the receipt declares.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Replay the custody of images: gaps, forks, steps without the role for them, steps before their parent.

    Exit codes: 0 COMPLETE, 5 INCOMPLETE (a finding), else that of the image's own verdict. With --parent also what a receipt
    declares is recomputed: the errors of a lossy compression, the parent's tiles that survive.

    Example: [bold]scanseal custody verify child.dcm --parent original.dcm --trust trust.toml[/bold]
    """
    code = _custody(paths, site, trust, bundle, offline, json, parent, replayed=True)
    if code:
        raise typer.Exit(code)


def _custody(
    paths: list[str],
    site: Path | None,
    trust: Path | None,
    bundle: list[Path] | None,
    offline: bool,
    json: bool,
    parent: Path | None = None,
    *,
    replayed: bool = False,
) -> int:
    from ledger.wiring import trails

    with ExitStack() as stack:
        verifier = stack.enter_context(assembly.verifier(site, trust, bundle or [], offline=offline))
        found = list(trails.trails(verifier, assembly.images(listed(paths)), parent))
    if not found:
        raise FixInput("no images there: name files or folders with DICOM images")
    code = trails.exit_code(found)
    if json:
        rows = [
            {
                "path": one.path,
                "verdict": str(one.verdict.token),
                "custody": one.token,
                "steps": custody_json(one.steps),
                "recomputed": one.recomputed,
            }
            for one in found
        ]
        worst = "COMPLETE" if not code else "INCOMPLETE"
        write_json({"custody": worst, "exit_code": code, "images": rows})
        return code
    for one in found:
        OUT.print(f"[bold]{plain(one.path)}[/bold]  {one.verdict.token}, custody {one.token}")
        if not one.steps:
            OUT.print("    " + plain("; ".join(one.verdict.reasons)))
            continue
        shown = table("step", "by", "claimed", "between blocks of", "")
        for step in one.steps:
            lower, upper = step.between
            between = "not on chain yet" if upper is None else f"{moment(lower)} and {moment(upper)}"
            note = f"{step.finding}: {step.detail}" if step.finding else step.meaning or ", ".join(step.changed)
            shown.add_row(step.operation, plain(step.by or "?"), moment(step.claimed_time), between, plain(note))
        OUT.print(shown)
        if one.recomputed:
            OUT.print(
                "    recomputed: " + ", ".join(f"{name} {value}" for name, value in one.recomputed.items() if name != "tiles")
            )
    return code if replayed else 0


def derive(
    source: Annotated[str, typer.Argument(metavar="IN", help="A sealed image, or a folder of them.")],
    device: KeyOption,
    output: Annotated[
        Path | None, typer.Argument(metavar="[OUT]", help="Where the de-identified images go: a file, or a folder.")
    ] = None,
    profile: Annotated[str | None, typer.Option("--profile", help="ps3.15-basic: de-identify.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", help="An option of PS3.15 Annex E, such as retain-uids. Repeatable.")
    ] = None,
    existing: Annotated[
        Path | None, typer.Option("--existing", help="The child, or a folder of children, that another tool made of IN.")
    ] = None,
    operation: Annotated[
        str | None,
        typer.Option(
            help="What made the existing child: de-identified, transcoded, lossy-compression, crop, burn-in, window, "
            "correction, ai-result, secondary-capture."
        ),
    ] = None,
    also: Annotated[
        list[Path] | None, typer.Option("--also", help="ai-result, secondary-capture: another parent. Repeatable.")
    ] = None,
    patient_id: Annotated[
        str | None, typer.Option("--patient-id", help="The subject's code, as the child's PatientID.")
    ] = None,
    patient_name: Annotated[str | None, typer.Option("--patient-name", help="The same as PatientName.")] = None,
    x: Annotated[int, typer.Option("--x", help="crop: the child's left edge in the parent, in pixels.", min=0)] = 0,
    y: Annotated[int, typer.Option("--y", help="crop: its upper edge.", min=0)] = 0,
    reason: Annotated[str | None, typer.Option("--reason", help="correction: why.")] = None,
    tool: Annotated[str | None, typer.Option("--tool", help="The software that made the child.")] = None,
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Make an image from a sealed one, or take one that is made, and sign what was kept and what was changed.

    With --profile the images are de-identified into OUT. With --existing a receipt is signed for what another tool made.
    A child that differs in anything that its operation may not change is refused, and the attribute is named.

    Example: [bold]scanseal derive study/ out/ --profile ps3.15-basic --patient-id S01 --device gateway[/bold]
    """
    if (existing is None) == (output is None):
        raise FixInput("name OUT for images to be de-identified here, or --existing for a child that is made already")
    if output is not None and profile is None:
        raise FixInput("OUT needs a --profile: ps3.15-basic")
    if profile not in (None, "ps3.15-basic"):
        raise FixInput(f"--profile {profile}: there is ps3.15-basic")
    if profile is None and operation is None:
        raise FixInput("--existing needs its --operation (or --profile ps3.15-basic)")
    how = operation or "de-identified"
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        deriving = stack.enter_context(assembly_custody.deriving(site, device))
        warn(deriving.warning)
        advance = stack.enter_context(progress(how, None, quiet=json))
        options = assembly_custody.deidentification_options(option or [])
        parents = assembly.images([source, *map(str, also or [])])
        if output is not None:
            derived = deriving.deidentify(parents, output, options, patient_id, patient_name, tool or assembly.software())
        else:
            made = assembly_custody.derivation(how, options, x=x, y=y, reason=reason, tool=tool)
            derived = deriving.existing(list(parents), assembly.images([str(existing)]), made)
        for count, one in enumerate(derived, 1):
            advance(count)
            rows.append(
                {
                    "path": one.child or one.parent,
                    "parent": one.parent,
                    "error": one.error,
                    "record_id": None if one.receipt is None else "0x" + one.receipt.record_id.hex(),
                    "changed": list(one.changed),
                    "warnings": list(one.warnings),
                }
            )
    if not json:
        for warning, number in _counted(rows).items():
            ERR.print(f"[yellow]warning:[/yellow] {number} image{'s' if number > 1 else ''}: {plain(warning)}")
    _report(rows, how, json)


def _counted(rows: list[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        for warning in row["warnings"]:
            counts[warning] = counts.get(warning, 0) + 1
    return counts


def esign(
    target: Annotated[
        str, typer.Argument(help="An image, a manifest (.jsonl), a record id (0x...), enrol:NAME:ROLES or revoke:NAME.")
    ],
    person: Annotated[str, typer.Option("--as", help="Whose key signs: a person's name here (`scanseal device list`).")],
    meaning: Annotated[str, typer.Option("--meaning", help="What the signature means: reviewed, approved, responsible ...")],
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Sign a record as a person: printed name, time and meaning, linked to what is signed (21 CFR Part 11 §11.50).

    Example: [bold]scanseal esign visit.jsonl --as ada --meaning approved[/bold]
    """
    signed = assembly_custody.esign(site, person, target, meaning)
    warn(signed.pop("warning"))
    if json:
        write_json(signed | {"time": iso(signed["time"])})
        return
    OUT.print(f"{plain(signed['name'])} signed {plain(signed['target'])} as {plain(meaning)}, {moment(signed['time'])}")
    OUT.print("next: [bold]scanseal anchor[/bold]")


def redact(
    studies: Annotated[list[str], typer.Argument(metavar="STUDY...", help="StudyInstanceUIDs, or an image of each study.")],
    bundles: Annotated[
        list[Path] | None, typer.Option("--bundles", help="Other folders of this site with evidence bundles. Repeatable.")
    ] = None,
    with_derived: Annotated[
        bool | None,
        typer.Option("--with-derived/--keep-derived", help="Erase what was made from these images, too, or keep it."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Erase studies: destroy the secrets that open their records, here and in this site's bundles. It cannot be undone.

    Records, signatures, log and chain stay as they are, and every other proof goes on holding; nothing can be learned about
    the erased studies from them. Copies of bundles that left the site, and backups, are yours to find.

    Example: [bold]scanseal redact 1.2.840.113619.2.55 --bundles /srv/evidence[/bold]
    """
    if not yes and not typer.confirm(f"erase {len(studies)} studies for good?", err=True):
        raise FixInput("nothing was erased (--yes does not ask)")
    done = assembly_custody.redact(site, studies, bundles or [], with_derived, warn)
    if json:
        write_json(done)
        return
    OUT.print(f"erased {done['studies']} studies with {done['records']} records")
    OUT.print(f"  bundles: {done['bundles_rewritten']} rewritten, {done['bundles_removed']} removed")
    if done["derived_kept"]:
        OUT.print(f"  {done['derived_kept']} images that were made from them are kept, and show that an original existed")
    OUT.print("  backups of the store and bundles elsewhere still open these studies: erase them as well")
