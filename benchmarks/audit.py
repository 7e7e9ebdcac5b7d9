"""Auditing a transmittal of many small images: how fast, in how much memory, and whether it finds what was done.

    python -m benchmarks.audit [--images 100000] [--edge 32] [--per-visit 200] [--faults 25] [--flat] [--folder FOLDER] [--json]

Images are 8-bit with a header of more than 250 elements, each visit a study, every second one de-identified: there a proof goes
back to the record of another image. `scanseal audit run --offline` runs as a process of its own, start of Python included,
three times: into a new workbook, again into the same one, and into a new one after some images were altered, some removed and
some added; the counts of findings must be exact. *Floor*: read the same files, SHA-256 of their pixel bytes, measured before
and after. All files are in the page cache, and everything runs on one core. Memory is the most that the process had resident.
Without --folder everything is made in a temporary folder and thrown away; with it, it stays.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import rounds, trial
from benchmarks.trial import Image, Pictures, Trial

ROOT = Path(__file__).resolve().parents[1]
MEMORY_GOAL = 500_000_000
FINDINGS_SHOWN = 1000
"""Of a result in JSON."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if 3 * options.faults > min(options.images, FINDINGS_SHOWN):
        raise SystemExit(
            f"--faults {options.faults} is too many: three of each kind must fit into --images and {FINDINGS_SHOWN}"
        )
    with _folder(options.folder) as folder, rounds.cores(1):
        made, pictures = trial.make(folder, options.images, options.edge, options.per_visit, flat=options.flat)
        result = {"machine": rounds.machine() | {"cores": 1}} | _measured(made, pictures, options.faults)
    print(json.dumps(result, indent=2) if options.json else _text(result))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000, help="images of the trial (default 100000)")
    parser.add_argument("--edge", type=int, default=32, help="their rows and columns (default 32)")
    parser.add_argument("--per-visit", type=int, default=200, help="images of a visit (default 200)")
    parser.add_argument("--faults", type=int, default=25, help="images to alter, to remove and to add (default 25 of each)")
    parser.add_argument("--flat", action="store_true", help="all images in one folder, in another order than the list's")
    parser.add_argument("--folder", type=Path, help="a new folder to make everything in, and to leave it there")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    return parser.parse_args(arguments)


@contextmanager
def _folder(named: Path | None) -> Iterator[Path]:
    if named is not None:
        named.mkdir(parents=True)
        yield named
        return
    with tempfile.TemporaryDirectory(prefix="scanseal-benchmark-") as name:
        yield Path(name)


# ---- measuring ------------------------------------------------------------------------------------------------------


def _measured(made: Trial, pictures: Pictures, faults: int) -> dict[str, Any]:
    count = len(made.images)
    floors = [rounds.timed(lambda: _floor(made.images))]
    in_order = Counter(AUTHENTIC=count - made.derived, DERIVED=made.derived)
    runs: dict[str, dict[str, Any]] = {}
    for name in ("first run", "run again"):
        rounds.say(name)
        runs[name] = audited(made, made.folder / "audit.sqlite", Expected("COMPLETE", in_order, Counter()))
    floors.append(rounds.timed(lambda: _floor(made.images)))
    if faults:
        rounds.say(f"a run with {faults} images altered, removed and added each")
        expected = _do_wrong(made, pictures, in_order, faults)
        runs["with faults"] = audited(made, made.folder / "faults.sqlite", expected)
    floor = min(floors)
    for row in runs.values():
        row["images_per_s"] = count / row["wall"]
        row |= {"ratio_wall": row["wall"] / floor.wall, "ratio_cpu": row["cpu"] / floor.cpu}
    return {
        "images": count,
        "derived": made.derived,
        "bytes_each": made.images[0].path.stat().st_size,
        "floor": {**floor._asdict(), "images_per_s": count / floor.wall},
        "runs": runs,
    }


def _floor(images: Sequence[Image]) -> None:
    for image in images:
        data = image.path.read_bytes()
        hashlib.sha256(memoryview(data)[-image.pixels :]).digest()


@dataclass(frozen=True)
class Expected:
    """What an audit must say: its verdict, images by verdict, findings by kind."""

    verdict: str
    images: Counter[str]
    findings: Counter[str]


def _do_wrong(made: Trial, pictures: Pictures, in_order: Counter[str], faults: int) -> Expected:
    """Alters a pixel of some images, removes others, adds some that nobody sealed; all over the trial."""
    chosen = made.images[:: len(made.images) // (2 * faults)]
    altered, removed = chosen[: 2 * faults : 2], chosen[1 : 2 * faults : 2]
    for image in altered:
        data = bytearray(image.path.read_bytes())
        data[-1] ^= 1
        image.path.write_bytes(data)
    for image in removed:
        image.path.unlink()
    for number in range(faults):
        pictures.write(made.folder / "images" / f"added-{number:08}.dcm", len(made.images) + number, altered[number].visit)
    left = in_order - Counter("DERIVED" if trial.is_derived(image.visit) else "AUTHENTIC" for image in (*altered, *removed))
    kinds = Counter(image_not_in_order=faults, missing_image=faults, unexpected_image=faults)
    return Expected("UNEXPECTED", left + Counter(ALTERED=faults, UNREGISTERED=faults), kinds)


def audited(made: Trial, workbook: Path, expected: Expected) -> dict[str, Any]:
    """Runs the command in a process of its own. Leaves the benchmark where it says anything but what is expected."""
    command = [sys.executable, "-m", "benchmarks.audit_worker", *made.arguments(workbook)]
    done: list[subprocess.CompletedProcess[str]] = []
    took = rounds.timed(lambda: done.append(subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)))
    try:
        said = json.loads(done[0].stdout)
        memory = json.loads(done[0].stderr.splitlines()[-1])["peak_memory"]
    except (ValueError, LookupError) as error:
        raise SystemExit(f"the audit failed, code {done[0].returncode}: {done[0].stderr}") from error
    found = Expected(said["verdict"], Counter(said["images"]), Counter(one["kind"] for one in said["findings"]))
    if found != expected:
        raise SystemExit(f"the audit says {found} instead of {expected}: this is no measurement")
    return {**took._asdict(), "peak_memory": memory, "verdict": found.verdict, "findings": dict(found.findings)}


# ---- for people -----------------------------------------------------------------------------------------------------


def _text(result: dict[str, Any]) -> str:
    machine, floor = result["machine"], result["floor"]
    lines = [
        f"{machine['processor']}; one core used; Python {machine['python']}",
        f"{result['images']:,} images of {result['bytes_each']:,} bytes, {result['derived']:,} of them de-identified",
        "",
        f"  {'':<13}{'images/s':>9}{'seconds':>9}{'x floor, wall':>15}{'x floor, processor':>20}{'peak MB':>9}",
        f"  {'floor':<13}{floor['images_per_s']:>9,.0f}{floor['wall']:>9.1f}",
    ]
    for name, row in result["runs"].items():
        rates = f"{row['images_per_s']:>9,.0f}{row['wall']:>9.1f}{row['ratio_wall']:>15.1f}{row['ratio_cpu']:>20.1f}"
        found = ", ".join(f"{count} {kind}" for kind, count in row["findings"].items())
        lines.append(f"  {name:<13}{rates}{row['peak_memory'] / 1e6:>9.0f}  {row['verdict']}{': ' * bool(found)}{found}")
    most = max(row["peak_memory"] for row in result["runs"].values())
    lines.append(f"memory: goal {MEMORY_GOAL / 1e6:.0f} MB: {'met' if most < MEMORY_GOAL else 'missed'}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
