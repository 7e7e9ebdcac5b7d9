"""`audit`: what was made, what arrived, what is in order, what is missing."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import typer

from ledger.audit.result import AuditResult
from ledger.cli.output import OUT, moment, plain, progress, table, write_json
from ledger.cli.verifying import JsonOption, SiteOption
from ledger.core.errors import FixInput
from ledger.wiring import assembly, assembly_trials

audit_app = typer.Typer(help="Reconcile what was listed with what is there, and report.", no_args_is_help=True)

WorkbookOption = Annotated[Path, typer.Option("--workbook", help="The audit's workbook: a run goes on where it stopped.")]
ManifestOption = Annotated[Path, typer.Option("--manifest", "-m", help="The signed list (.jsonl), or the folder it is in.")]
EvidenceOption = Annotated[Path | None, typer.Option("--evidence", help="Its evidence (default: evidence/ beside it).")]
WORKBOOK = Path("audit.sqlite")
Lang = Literal["en", "fr"]


def register(app: typer.Typer) -> None:
    app.add_typer(audit_app, name="audit", rich_help_panel="Trials")


@audit_app.command("run")
def audit_run(
    manifest: ManifestOption,
    images: Annotated[list[Path], typer.Option("--images", "-i", help="Where the images are. Repeatable.")],
    trust: Annotated[Path | None, typer.Option("--trust", help="The trust file (default: the site's).")] = None,
    evidence: EvidenceOption = None,
    protocol: Annotated[Path | None, typer.Option("--protocol", help="The expected visits, CSV or JSON.")] = None,
    also: Annotated[
        list[Path] | None, typer.Option("--also", help="Another manifest that accounts for counters. Repeatable.")
    ] = None,
    bundle: Annotated[list[Path] | None, typer.Option("--bundle", help="More evidence bundles. Repeatable.")] = None,
    workbook: WorkbookOption = WORKBOOK,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no one: the trust file alone decides. Opens no socket.")
    ] = False,
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Reconcile both ways: each listed image is there and verified, each image that is there is listed.

    It streams over any number of images, and goes on after an interruption with what its workbook does not have yet.
    Exit codes: 0 COMPLETE, 5 INCOMPLETE, UNEXPECTED, WITHHELD or OPEN; 1, 6, 7, 9 as `scanseal verify`: the worst counts.

    Example: [bold]scanseal audit run -m transmittal-1 -i received --trust trust.toml --protocol visits.csv[/bold]
    """
    audited(manifest, images, trust, evidence, protocol, also or [], bundle or [], workbook, offline, site, json)


def audited(
    manifest: Path,
    images: list[Path],
    trust: Path | None,
    evidence: Path | None,
    protocol: Path | None,
    also: list[Path],
    bundle: list[Path],
    workbook: Path | None,
    offline: bool,
    site: Path | None,
    json: bool,
) -> None:
    """Runs an audit and leaves with its exit code; without a workbook in one that is thrown away."""
    for folder in images:
        if not folder.exists():
            raise FixInput(f"{folder}: no such file or folder")
    with ExitStack() as stack:
        if workbook is None:
            workbook = Path(stack.enter_context(TemporaryDirectory())) / WORKBOOK
        audit = stack.enter_context(
            assembly_trials.audit(site, trust, manifest, evidence, protocol, also, workbook, offline=offline)
        )
        advance = stack.enter_context(progress("auditing", audit.expected_images, quiet=json))
        result = audit.run(assembly.images(map(str, images)), assembly_trials.bundles(bundle), advance)
    if json:
        write_json(_summary(result))
    else:
        _show(result, None if workbook is None else workbook)
    raise typer.Exit(result.exit_code)


def _summary(result: AuditResult) -> dict[str, Any]:
    return {
        "verdict": str(result.token),
        "exit_code": result.exit_code,
        "trial": result.trial,
        "site": result.site,
        "manifest_record": result.manifest_record,
        "listed": result.listed,
        "present": result.present,
        "images": dict(result.images),
        "visits": [vars(visit) | {"token": str(visit.token)} for visit in result.visits],
        "findings": [vars(finding) | {"parameters": dict(finding.parameters)} for finding in result.findings],
        "findings_total": result.findings_total,
        "signatures": [{"name": one.name, "meaning": one.meaning, "time": one.time} for one in result.signatures],
    }


def _show(result: AuditResult, workbook: Path | None) -> None:
    style = "green" if not result.exit_code else "bold red"
    OUT.print(
        f"[{style}]{result.token}[/{style}]  {plain(result.manifest_kind)} of trial {plain(result.trial)}, {plain(result.site)}"
    )
    OUT.print(
        f"    {result.listed} listed, {result.present} there: "
        + ", ".join(f"{n} {v}" for v, n in sorted(result.images.items()))
    )
    visits = table("subject", "visit", "verdict", "listed", "there", "in order")
    for visit in result.visits:
        row = (visit.listed, visit.present, visit.in_order)
        visits.add_row(plain(visit.subject), plain(visit.visit), str(visit.token), *map(str, row))
    OUT.print(visits)
    for finding in result.findings[:50]:
        where = " ".join(filter(None, (finding.subject, finding.visit)))
        OUT.print(f"  {finding.kind.replace('_', ' ')}: {plain(where)} {plain(finding.path or '')} {plain(finding.detail)}")
    if result.findings_total > 50:
        OUT.print(f"  ... and {result.findings_total - 50} more")
    for one in result.signatures:
        OUT.print(f"  signed by {plain(one.name)}, {plain(one.meaning)}, {moment(one.time)}")
    if workbook is not None:
        OUT.print(f"next: [bold]scanseal audit report --workbook {plain(str(workbook))} -o report[/bold]")


@audit_app.command("report")
def audit_report(
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder for the report.")],
    workbook: WorkbookOption = WORKBOOK,
    lang: Annotated[Lang, typer.Option("--lang", help="en or fr. Verdicts are never translated.")] = "en",
    audience: Annotated[
        str,
        typer.Option("--for", help="Who reads it: auditor, sponsor, reader. A reader's copy does not tell what was withheld."),
    ] = "auditor",
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="html, pdf, csv, json (default: all). Repeatable.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write what an audit found: one HTML page that needs no network, a PDF, CSV and JSON, all from the same result.

    Example: [bold]scanseal audit report -o rapport --lang fr[/bold]
    """
    written = assembly_trials.report(workbook, output, lang, audience, formats or [])
    if json:
        write_json({"files": [str(path) for path in written]})
        return
    for path in written:
        OUT.print(plain(str(path)))


@audit_app.command("pack")
def audit_pack(
    manifest: ManifestOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The zip to write.")],
    trust: Annotated[Path | None, typer.Option("--trust", help="The trust file (default: the site's).")] = None,
    evidence: EvidenceOption = None,
    report: Annotated[
        list[Path] | None, typer.Option("--report", help="A folder that `audit report` wrote, or a file of it. Repeatable.")
    ] = None,
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Write one zip with the list, all evidence, the trust file, the checkpoints, the reports and instructions.

    It verifies with `scanseal verify --offline` on a machine without a network, as long as anybody keeps it with the images.
    It is an auditor's: the list in it tells what was withheld.

    Example: [bold]scanseal audit pack -m transmittal-1 --trust trust.toml --report report -o ABC-301.zip[/bold]
    """
    packed = assembly_trials.pack(site, trust, manifest, evidence, report or [], output)
    if json:
        write_json(packed)
        return
    OUT.print(f"{plain(str(output))}: {packed['bundles']} bundles, {packed['reports']} reports, {packed['bytes']:,} bytes")
