"""`detect`: a statistical opinion on images, whether they look synthetic. It changes nothing, and proves nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.cli.fingerprint import FingerprintsOption, folder_of
from ledger.cli.output import OUT, plain, progress, write_json
from ledger.cli.verifying import JsonOption, left_out, listed
from ledger.core.errors import FixInput
from ledger.core.verdict import SEVERITY

if TYPE_CHECKING:
    from ledger.wiring.opinion import Opinion

STYLES = {
    "LIKELY_SYNTHETIC": "bold red",
    "NO_SIGN_OF_SYNTHESIS": "green",
    "INCONCLUSIVE": "yellow",
    "OUT_OF_SCOPE": "cyan",
    "NOT_RUN": "yellow",
}
_INDENT = " " * 22


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Verify")(detect)


def detect(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATHS...", help="DICOM, PNG, JPEG, TIFF or WebP files, folders, zips, or - for a list on stdin."
        ),
    ],
    heatmap: Annotated[
        Path | None, typer.Option("--heatmap", metavar="DIR", help="Write a picture of where beside each image's own there.")
    ] = None,
    fingerprints: FingerprintsOption = None,
    json: JsonOption = False,
) -> None:
    """Ask the detector whether chest radiographs look synthetic: a statistical opinion, never a proof.

    It looks at pixels alone. What files tell of themselves is listed as findings, and has no part in the opinion. It is
    calibrated for chest radiographs from the front and says OUT_OF_SCOPE of everything else. Of a DICOM object that claims a
    device with an enrolled fingerprint, a reason says whether it looks like that device: no word, no exit code depends on it.

    Exit codes: 8 LIKELY_SYNTHETIC, 7 NOT_RUN (an image could not be read), 0 anything else, 2 usage. Of many images the worst
    decides (8 > 7 > 0).

    Example: [bold]scanseal detect incoming/ --heatmap where/[/bold]
    """
    from ledger.wiring.fingerprints import Fingerprints
    from ledger.wiring.opinion import Images, Opinions, WithoutPixels

    folder = folder_of(fingerprints)
    if fingerprints is not None and not fingerprints.is_dir():
        raise FixInput(f"--fingerprints {fingerprints}: no such folder")
    opinions = Opinions.load(heatmap, None if folder is None else Fingerprints(folder))
    images = Images(listed(paths))
    counts: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    codes: list[int] = []
    without_pixels = 0
    with progress("looking", None, quiet=json) as advance:
        for count, looked in enumerate(images, 1):
            try:
                opinion = opinions.of(looked)
            except WithoutPixels:
                without_pixels += 1
                continue
            finally:
                advance(count)
            counts[opinion.assessment.word] += 1
            codes.append(opinion.exit_code)
            if json:
                rows.append(opinion.as_json())
            else:
                show(opinion)
    left = left_out(images.skipped, without_pixels, "no image files")
    if not codes:
        raise FixInput(f"no images there{left}: name files or folders with images")
    code = min(codes, key=SEVERITY.index)
    if json:
        write_json({"exit_code": code, "images": rows, "skipped": images.skipped, "without_pixels": without_pixels})
    else:
        tally = ", ".join(f"{number} {worded(word)}" for word, number in counts.most_common())
        many = "s" if counts.total() > 1 else ""
        OUT.print(f"{counts.total()} image{many}: {tally}{left}")
        OUT.print("[dim]statistical opinions, no proof: docs/detector.md says how to read them[/dim]")
    raise typer.Exit(code)


def worded(word: str) -> str:
    return f"[{STYLES[word]}]{word}[/{STYLES[word]}]"


def show(opinion: Opinion) -> None:
    """The word, what it is worth, and why."""
    given = opinion.assessment
    OUT.print(f"{worded(given.word)}{' ' * max(len(_INDENT) - len(given.word), 2)}{plain(opinion.path)}")
    if given.synthetic_probability is not None:
        rate = given.false_positive_rate
        at = "" if rate is None else f", at a threshold that {rate:.1%} of real radiographs pass as well"
        OUT.print(f"{_INDENT}[dim]probability {given.synthetic_probability:.0%}{at}[/dim]")
    for reason in given.reasons:
        odds = "" if reason.p_value is None else f" (p {reason.p_value:.2g})"
        OUT.print(f"{_INDENT}{plain(reason.part)}: {plain(reason.text)}{odds}")
    for finding in opinion.findings:
        OUT.print(f"{_INDENT}[dim]file: {plain(finding.text)}[/dim]")
    if opinion.heatmap is not None:
        OUT.print(f"{_INDENT}[dim]where: {plain(str(opinion.heatmap))}[/dim]")
