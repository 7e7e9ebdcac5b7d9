"""`verify`, `explain`, `inspect`: what is known about images. They change nothing."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.cli.output import ERR, OUT, iso, moment, plain, progress, styled, table, verdict_json, write_json
from ledger.core.errors import FixInput
from ledger.core.explanation import explain as explanation_of
from ledger.core.verdict import Token, Verdict, worst
from ledger.wiring import assembly

if TYPE_CHECKING:
    from ledger.wiring.opinion import Opinions
    from ledger.wiring.verification import Result

Paths = Annotated[
    list[str], typer.Argument(metavar="PATHS...", help="Files, folders, zips, DICOMDIRs, or - for a list on stdin.")
]
SiteOption = Annotated[Path | None, typer.Option("--site", help="The site's folder (default: the nearest site.toml upward).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
TrustOption = Annotated[Path | None, typer.Option("--trust", help="The trust file (default: the site's trust.toml).")]
BundleOption = Annotated[
    list[Path] | None, typer.Option("--bundle", help="An evidence bundle, or a folder of them. Repeatable.")
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Ask no one: the trust file alone decides. Opens no socket.")]
NodeOption = Annotated[
    str | None, typer.Option("--node", help="URL of a log node that may have the evidence (default: the site's).")
]
NodeCaOption = Annotated[
    Path | None, typer.Option("--node-ca", help="Whom to believe that the node is itself (PEM; default: the system).")
]


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Verify")(verify)
    app.command(rich_help_panel="Verify")(explain)
    app.command(rich_help_panel="Verify")(inspect)


def verify(
    paths: Paths,
    site: SiteOption = None,
    trust: TrustOption = None,
    bundle: BundleOption = None,
    offline: OfflineOption = False,
    node: NodeOption = None,
    node_ca: NodeCaOption = None,
    json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only images that are not in order.")] = False,
    detector: Annotated[
        bool, typer.Option("--detector/--no-detector", help="Ask the detector for its opinion on images without any record.")
    ] = True,
) -> None:
    """Say of each image whether its custody is proven.

    In folders and archives, DICOM objects without pixels and other files are counted and left out. Of an image that is
    UNREGISTERED the detector is asked for a statistical opinion, where it is installed; its opinion never changes the verdict.

    Exit codes: 0 AUTHENTIC or DERIVED, 1 ALTERED, MISMATCH, REVOKED or STRIPPED, 3 UNREGISTERED, 4 PENDING, 6 ledger out of
    reach,
    7 unreadable, 8 UNREGISTERED and LIKELY_SYNTHETIC, 9 DECLARED_SYNTHETIC, 2 usage. Of many images the worst decides
    (1 > 5 > 8 > 9 > 6 > 7 > 3 > 4 > 0).

    Example: [bold]scanseal verify study/ --bundle study.seal.json --trust trust.toml --offline[/bold]
    """
    decisive: Verdict | None = None
    counts: Counter[Token] = Counter()
    as_of: int | None = None
    rows: list[dict[str, Any]] = []
    without_pixels = 0
    images = assembly.images(listed(paths))
    second = SecondOpinion(detector)
    with ExitStack() as stack:
        verifier = stack.enter_context(
            assembly.verifier(site, trust, bundle or [], offline=offline, node=node, node_ca=node_ca)
        )
        results = verifier.verify(images)
        advance = stack.enter_context(progress("verifying", None, quiet=json))
        for count, result in enumerate(results, 1):
            advance(count)
            if result.without_pixels:
                without_pixels += 1
                continue
            result, opinion = second.on(result)
            decisive = worst(filter(None, (decisive, result.verdict)))
            counts[result.verdict.token] += 1
            as_of = min(filter(None, (as_of, result.verdict.as_of)), default=None)
            if json:
                rows.append(verdict_json(result.path, result.verdict, opinion))
            elif not quiet or result.verdict.exit_code:
                _show(result, opinion)
    if decisive is None:
        raise FixInput(f"no images there{left_out(images.skipped, without_pixels)}: name files or folders with DICOM images")
    if json:
        found = {"images": rows, "skipped": images.skipped, "without_pixels": without_pixels}
        write_json({"verdict": str(decisive.token), "exit_code": decisive.exit_code} | found)
    else:
        tally = ", ".join(f"{number} {styled(token)}" for token, number in counts.most_common())
        OUT.print(
            f"{counts.total()} image{'s' if counts.total() > 1 else ''}: {tally}{left_out(images.skipped, without_pixels)}"
        )
        if as_of is not None:
            OUT.print(f"[dim]nobody was asked: keys are as of {moment(as_of)}, younger news is the trust file's[/dim]")
    raise typer.Exit(decisive.exit_code)


class SecondOpinion:
    """The detector, asked for images without any record and for no other; loaded when the first of them comes."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._opinions: Opinions | None = None
        self._missing: str | None = None

    def on(self, result: Result) -> tuple[Result, dict[str, Any] | None]:
        """The result, whose exit code says LIKELY_SYNTHETIC (its verdict stays the same), and the opinion as JSON."""
        if not self._wanted or result.found is None or result.verdict.token is not Token.UNREGISTERED:
            return result, None
        from ledger.wiring.opinion import LIKELY_SYNTHETIC, NotInstalled, Opinions, not_asked

        if self._opinions is None and self._missing is None:
            try:
                self._opinions = Opinions.load()
            except NotInstalled as error:
                self._missing = str(error)
        if self._opinions is None:
            return result, not_asked(self._missing or "")
        opinion = self._opinions.of_dicom(result.path, result.found.read).as_json()
        del opinion["path"], opinion["heatmap"]
        if opinion["assessment"] == "LIKELY_SYNTHETIC":
            result = replace(result, verdict=replace(result.verdict, exit_code=LIKELY_SYNTHETIC))
        return result, opinion


def _show(result: Result, opinion: dict[str, Any] | None = None) -> None:
    """Two or three lines an image: the verdict, by whom and when, and why where it is not in order."""
    verdict = result.verdict
    OUT.print(f"{styled(verdict.token)}{' ' * max(14 - len(verdict.token), 2)}{plain(result.path)}")
    lower, upper = verdict.sealed_between
    if verdict.device is not None:
        between = "" if upper is None else f", between {moment(lower)} and {moment(upper)}"
        OUT.print(f"              [dim]sealed by {plain(verdict.device)}{between}[/dim]")
    elif upper is not None:
        OUT.print(f"              [dim]first on record between {moment(lower)} and {moment(upper)}, of unknown origin[/dim]")
    if verdict.token is not Token.AUTHENTIC:
        OUT.print("              " + plain("; ".join(verdict.reasons)))
    if opinion is not None:
        said = "; ".join(reason["text"] for reason in opinion["reasons"])
        OUT.print(f"              detector: {opinion['assessment']}, a statistical opinion and no proof: {plain(said)}")


def explain(
    file: Annotated[str, typer.Argument(help="One image.")],
    site: SiteOption = None,
    trust: TrustOption = None,
    bundle: BundleOption = None,
    offline: OfflineOption = False,
    node: NodeOption = None,
    node_ca: NodeCaOption = None,
    json: JsonOption = False,
) -> None:
    """Explain one image's verdict in sentences: what it means, what it does not mean, what to do next.

    Example: [bold]scanseal explain scan.dcm --trust trust.toml[/bold]
    """
    with ExitStack() as stack:
        verifier = stack.enter_context(
            assembly.verifier(site, trust, bundle or [], offline=offline, node=node, node_ca=node_ca)
        )
        results = list(verifier.verify(assembly.images(listed([file]))))
    if len(results) != 1:
        raise FixInput(f"explain takes one image, {len(results)} are there: use `scanseal verify`")
    verdict = results[0].verdict
    sentences = explanation_of(verdict)
    if json:
        write_json(
            verdict_json(results[0].path, verdict)
            | {"means": sentences.means, "does_not_mean": sentences.does_not_mean, "next": sentences.next}
        )
        raise typer.Exit(verdict.exit_code)
    OUT.print(f"{styled(verdict.token)}  {plain(results[0].path)}")
    for reason in verdict.reasons:
        OUT.print(f"  because {plain(reason)}")
    OUT.print(f"\n[bold]What it means[/bold]\n  {sentences.means}")
    OUT.print(f"\n[bold]What it does not mean[/bold]\n  {sentences.does_not_mean}")
    OUT.print(f"\n[bold]What to do next[/bold]\n  {sentences.next}\n")
    checks = table("axis", "status", "detail")
    for axis, check in verdict.checks.items():
        checks.add_row(axis, check.status.replace("_", " "), plain(check.detail))
    OUT.print(checks)
    lower, upper = verdict.sealed_between
    if upper is not None:
        OUT.print(f"\nsealed after  {moment(lower)}\nand before    {moment(upper)}, block {verdict.block}")
    for tile in verdict.regions:
        OUT.print(f"changed: frame {tile.frame}, x {tile.x} to {tile.x + tile.width}, y {tile.y} to {tile.y + tile.height}")
    raise typer.Exit(verdict.exit_code)


def inspect(
    file: Annotated[Path, typer.Argument(help="One DICOM image.")],
    hash_name: Annotated[str, typer.Option("--hash", help="sha256 or blake3.")] = "sha256",
    json: JsonOption = False,
) -> None:
    """Show what a seal of an image would bind: its digest, and each attribute as it is normalised. Shows the patient.

    Example: [bold]scanseal inspect scan.dcm --json[/bold]
    """
    described = assembly.describe(file, hash_name)
    if json:
        write_json(described)
        return
    for label in ("pixel_digest", "profile", "refusal", "transfer_syntax", "frames", "decoder", "decoded_digest"):
        if described[label] is not None:
            OUT.print(f"[bold]{label.replace('_', ' ')}[/bold]  {plain(str(described[label]))}")
    shown = table("attribute", "bound value")
    for name, value in described["attributes"].items():
        shown.add_row(name, "[dim]absent[/dim]" if value is None else plain(value))
    OUT.print(shown)
    if len(described["frame_digests"]) > 1:
        for number, frame in enumerate(described["frame_digests"]):
            OUT.print(f"frame {number}: {frame}")


def left_out(skipped: int, without_pixels: int, others: str = "no DICOM") -> str:
    """What was found and is no image, in brackets; empty when there was nothing."""
    parts = [(without_pixels, "without pixels"), (skipped, others)]
    said = ", ".join(f"{number} {what}" for number, what in parts if number)
    return f" (left out: {said})" if said else ""


def listed(paths: list[str]) -> Iterator[str]:
    """The paths, where `-` stands for those on standard input, one a line."""
    for path in paths:
        if path == "-":
            for line in sys.stdin:
                if "\0" in line:
                    raise FixInput("standard input is no list of paths, one a line (for an image itself, name its file)")
                if line.strip():
                    yield line.rstrip("\n")
        else:
            yield path


__all__ = ["ERR", "BundleOption", "JsonOption", "Paths", "SiteOption", "TrustOption", "iso", "left_out", "listed", "register"]
