"""The device fingerprint on *simulated* sensors: what is told apart, and where it fails. It measures no real panel.

    python -m benchmarks.fingerprint [--edge 448] [--probes 40] [--json]

Scenes are real radiographs where the shared data is (SCANSEAL_DATA), smoothed so that no noise of their own is left, otherwise
drawn ones; no scene is used twice. A device is enrolled from so many images and asked about `probes` new ones of its own and as
many of eight other simulated devices. All of them are changed alike: as stored (12 bits), presented (logarithm, edges enhanced,
8 bits; enrolled so as well), presented and then JPEG 75, presented and then half scale, cut to three quarters, calibrated anew.
*AUC* is of the strength of the peak, own against others; *found* is the share of own images called `match`, *denied* of own
ones called `no match` (false alarms); *foreign found* and *foreign denied* the same of other devices' images. A fingerprint
that isn't distinctive by its leave-one-out test claims nothing, and has dashes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from detector.augment import recoded, scaled
from detector.fingerprint import Fingerprint, compare
from detector.metrics import auc
from detector.pattern import Exposure
from detector.splits import DataMissing, data_folder, radiographs
from tests.simulators.sensor import Sensor, chest, presented

STRENGTHS = (0.001, 0.005, 0.01)
COUNTS = (8, 16, 50)
OTHERS = 8

Pixels = np.ndarray[Any, np.dtype[Any]]
Change = Callable[[Pixels], Pixels]
CHANGES: dict[str, tuple[Change, Change]] = {
    "as stored": (lambda image: image, lambda image: image),
    "presented": (presented, presented),
    "presented, JPEG 75": (presented, lambda image: recoded(presented(image), "JPEG", 75)),
    "presented, half scale": (presented, lambda image: scaled(presented(image), 0.5)),
    "three quarters": (lambda image: image, lambda image: image[30:][: len(image) * 3 // 4, : len(image) * 3 // 4]),
}
"""What is done to enrolled images, and to those that are asked about."""


@dataclass(frozen=True)
class Row:
    """One line of the table; shares are None where nothing is claimed."""

    strength: float
    enrolled: int
    change: str
    auc: float
    found: float | None
    denied: float | None
    foreign_found: float | None
    foreign_denied: float | None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=448)
    parser.add_argument("--probes", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    kind, scenes = _scenes(options.edge, max(COUNTS) + 2 * options.probes)
    rows: list[Row] = []
    if not options.json:
        print(f"simulated sensors of {options.edge} x {options.edge} pixels, {options.probes} own and foreign images; {kind}\n")
        print("| gains | enrolled | images | AUC | found | denied | foreign found | foreign denied |\n|" + "---|" * 8)
    for row in _measured(scenes, options.probes):
        rows.append(row)
        if not options.json:
            print(_line(row), flush=True)
    if options.json:
        print(json.dumps({"simulated": True, "scenes": kind, "rows": [asdict(row) for row in rows]}, indent=2))


def _scenes(edge: int, count: int) -> tuple[str, list[Pixels]]:
    try:
        folder = data_folder()
    except DataMissing as error:
        print(f"{error}: scenes are drawn", file=sys.stderr)
        return "drawn scenes", [chest((edge, edge), seed) for seed in range(count)]
    listed = radiographs(kind="512")
    order = np.random.default_rng(1).permutation(len(listed))
    return "scenes from real radiographs", [_transmitted(listed[at].pixels(folder), edge) for at in order[:count]]


def _transmitted(pixels: Pixels, edge: int) -> Pixels:
    """X-rays through what a radiograph shows: its middle, without its own noise; what is bright in it lets few through."""
    top, left = ((side - edge) // 2 for side in pixels.shape)
    middle = pixels[top : top + edge, left : left + edge].astype(np.float32)
    return np.asarray(0.06 ** ndimage.gaussian_filter(middle / 255, 1.5), np.float32)


def _measured(scenes: list[Pixels], probes: int) -> Iterator[Row]:
    shape = (scenes[0].shape[0], scenes[0].shape[1])
    enrolling, own, foreign = scenes[: max(COUNTS)], scenes[max(COUNTS) :][:probes], scenes[max(COUNTS) + probes :]
    for strength in STRENGTHS:
        panel = Sensor.made(shape, 1, strength=strength)
        panels = [Sensor.made(shape, 100 + number, strength=strength) for number in range(OTHERS)]
        stored = [panel.image(scene, number) for number, scene in enumerate(enrolling)]
        theirs = [panels[number % OTHERS].image(scene, number) for number, scene in enumerate(foreign)]
        ours = [panel.image(scene, 1000 + number) for number, scene in enumerate(own)]
        for count in COUNTS:
            made: dict[Change, Fingerprint] = {}
            for name, (before, after) in CHANGES.items():
                if before not in made:
                    made[before] = Fingerprint.of([before(image) for image in stored[:count]], fewest=count)
                yield _row(strength, name, made[before], [after(one) for one in ours], [after(one) for one in theirs])
            if count == 16:
                for share in (0.5, 0.9, 1.0):
                    anew = panel.recalibrated(share, 7)
                    again = [anew.image(scene, 1000 + number) for number, scene in enumerate(own)]
                    name = f"{share:.0%} of the pattern new by calibration"
                    yield _row(strength, name, made[CHANGES["as stored"][0]], again, theirs)


def _row(strength: float, change: str, made: Fingerprint, own: list[Pixels], foreign: list[Pixels]) -> Row:
    strengths, words = [], []
    for image in (*own, *foreign):
        peak = made.peak(Exposure(image))
        strengths.append(0.0 if peak is None else peak.strength)
        words.append(compare(made, image).word)
    labels = np.arange(len(words)) < len(own)
    shares: list[float | None] = [None] * 4
    if made.distinctive:
        kinds = (words[: len(own)], words[len(own) :])
        shares = [kind.count(word) / len(kind) for kind in kinds for word in ("match", "no match")]
    return Row(strength, len(made.strengths), change, auc(np.array(strengths), labels), *shares)


def _line(row: Row) -> str:
    shares = (row.found, row.denied, row.foreign_found, row.foreign_denied)
    said = " | ".join("-" if share is None else f"{share:.0%}" for share in shares)
    return f"| {row.strength:.1%} | {row.enrolled} | {row.change} | {row.auc:.3f} | {said} |"


if __name__ == "__main__":
    main()
