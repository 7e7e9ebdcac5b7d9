"""Evidence bundles: how fast one is judged with ready digests, how fast it is read, and how large it is.

    python -m benchmarks.bundles [--sizes 1 64 1024] [--samples 2000] [--cold 10] [--studies 1] [--json]

*Warm*: `ledger.core.verify.verify` of an image whose digests and attributes are ready, with a bundle that judged another image
before. *Cold*: the first image of a parsed bundle of a ledger, device and authority never seen before, building its index
included. *Parse*: the bytes of the file to a bundle. *Size*: the file's bytes divided by its images, with and without the tile
hashes of a 512 x 512 image. The log has no other entries: each doubling of its size adds a node of 43 bytes an image. State
proofs are of the simulator's tries, which are shallower than a public chain's: there a bundle has some kilobytes more, once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from benchmarks import files, rounds
from benchmarks.rounds import Spread, percentile
from ledger.core import content, evidence
from ledger.core.evidence import Bundle, Seal
from ledger.core.pixels import PixelDigest
from ledger.core.verdict import Token
from ledger.core.verify import Evidence, Subject, verify
from ledger.dicom import read
from ledger.keys.signers import Curve
from tests.simulators.ledger import World

STATE_BLOCK = 8
WARM_GOAL_MS = 2.0
SIZE_GOAL_BYTES, SIZE_GOAL_AT = 3000, 1024
PARSES = 7
NODE_BYTES = 128 / 3
"""Of an inclusion path, in base64."""


@dataclass(frozen=True)
class Case:
    """A ledger that sealed `subjects`, and the bundle of them."""

    world: World
    subjects: list[Subject]
    bundle: Bundle


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    with tempfile.TemporaryDirectory(prefix="scanseal-benchmark-") as name, rounds.cores(1):
        model = _model(Path(name))
        curves: tuple[Curve, ...] = get_args(Curve)
        sizes: dict[str, Any] = {}
        for size in options.sizes:
            rounds.say(f"{size} images a bundle")
            sizes[str(size)] = _size_and_parse(model, size, options.studies)
        result = {
            "machine": rounds.machine() | {"cores": 1},
            "studies": options.studies,
            "bundles": sizes,
            "verify": {curve: _verify(model, curve, options) for curve in curves},
        }
    print(json.dumps(result, indent=2) if options.json else _text(result))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 64, 1024], help="images a bundle (default 1 64 1024)")
    parser.add_argument("--samples", type=int, default=2000, help="warm verifications (default 2000)")
    parser.add_argument("--cold", type=int, default=10, help="cold verifications of each size (default 10)")
    parser.add_argument("--studies", type=int, default=1, help="studies that a bundle's images are of (default 1)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    return parser.parse_args(arguments)


# ---- making ---------------------------------------------------------------------------------------------------------


def _model(folder: Path) -> Subject:
    """A CT of 512 x 512 as read."""
    image = read(files.make(folder / "model", "CT", 1)[0].path)
    return Subject(image.attributes, {"px1-sha256": image.digest("px1-sha256")})


def _subject(model: Subject, number: int, *, tiles: bool) -> Subject:
    """The model as another image: with its tiles only where they are measured, since a digest of made-up tiles is no digest."""
    instance = f"{files.ROOT_UID}.3.{number}"
    attributes = {**model.attributes, "SOPInstanceUID": instance, "InstanceNumber": str(number + 1)}
    if tiles:
        return Subject(attributes, model.digests)
    return Subject(attributes, {"px1-sha256": PixelDigest("px1-sha256", hashlib.sha256(instance.encode()).digest())})


def _case(model: Subject, curve: Curve, size: int, studies: int, *, tiles: bool = False) -> Case:
    world = World(curve)
    subjects = [_subject(model, number, tiles=tiles) for number in range(size)]
    secrets = [hashlib.sha256(b"%d" % study).digest() for study in range(min(studies, size))]
    seals: list[Seal] = []
    for number, subject in enumerate(subjects):
        study = number % len(secrets)
        world.study_secret = secrets[study]
        seals.append(world.seal(subject, tiles=tiles).model_copy(update={"study": study}))
    keys = tuple(content.find_key(secret) for secret in secrets)
    bundle = world.anchored(seals, state_block=STATE_BLOCK, studies=keys)
    return Case(world, subjects, evidence.parse(evidence.write(bundle)))


# ---- measuring ------------------------------------------------------------------------------------------------------


def _size_and_parse(model: Subject, size: int, studies: int) -> dict[str, Any]:
    written = evidence.write(_case(model, "secp256k1", size, studies).bundle)
    with_tiles = evidence.write(_case(model, "secp256k1", size, studies, tiles=True).bundle)
    times = [rounds.timed(lambda: evidence.parse(written)).wall * 1e3 for _ in range(PARSES)]
    return {
        "bytes": len(written),
        "bytes_an_image": len(written) / size,
        "bytes_an_image_with_tiles": len(with_tiles) / size,
        "bytes_an_image_in_a_log_of_a_million": len(written) / size + NODE_BYTES * (20 - (size - 1).bit_length()),
        "parse_ms": asdict(Spread.of(times)),
    }


def _verify(model: Subject, curve: Curve, options: argparse.Namespace) -> dict[str, Any]:
    cold = {}
    for size in options.sizes:
        rounds.say(f"{curve}: {options.cold} cold verifications with {size} images a bundle")
        cold[str(size)] = asdict(Spread.of([_cold(model, curve, size, options.studies) for _ in range(options.cold)]))
    rounds.say(f"{curve}: {options.samples} warm verifications")
    case = _case(model, curve, max(options.sizes), options.studies)
    known = Evidence([case.bundle], case.world.trust(STATE_BLOCK))
    _judged(case.subjects[0], known)
    times = [_judged(case.subjects[number % len(case.subjects)], known) for number in range(options.samples)]
    return {
        "warm_ms": {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99), "most": max(times)},
        "warm_images_a_bundle": max(options.sizes),
        "cold_ms": cold,
    }


def _cold(model: Subject, curve: Curve, size: int, studies: int) -> float:
    case = _case(model, curve, size, studies)
    trust = case.world.trust(STATE_BLOCK)
    start = time.perf_counter()
    verdict = verify(case.subjects[-1], Evidence([case.bundle], trust))
    took = time.perf_counter() - start
    if verdict.token is not Token.AUTHENTIC:
        raise SystemExit(f"the verdict is {verdict.token}: this is no measurement")
    return took * 1e3


def _judged(subject: Subject, known: Evidence) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    verdict = verify(subject, known)
    took = time.perf_counter() - start
    if verdict.token is not Token.AUTHENTIC:
        raise SystemExit(f"the verdict is {verdict.token}: this is no measurement")
    return took * 1e3


# ---- for people -----------------------------------------------------------------------------------------------------


def _text(result: dict[str, Any]) -> str:
    machine = result["machine"]
    lines = [f"{machine['processor']}; one core used; Python {machine['python']}; studies a bundle: {result['studies']}", ""]
    for size, one in result["bundles"].items():
        goal = f"  goal {SIZE_GOAL_BYTES}: {_met(one['bytes_an_image'], SIZE_GOAL_BYTES)}" if int(size) == SIZE_GOAL_AT else ""
        parse = Spread(**one["parse_ms"]).text(1)
        lines.append(
            f"bundle of {int(size):>6,}: {one['bytes_an_image']:>8,.0f} bytes an image"
            f" ({one['bytes_an_image_with_tiles']:,.0f} with tiles,"
            f" {one['bytes_an_image_in_a_log_of_a_million']:,.0f} in a log of a million), parsed in {parse} ms{goal}"
        )
    for curve, one in result["verify"].items():
        warm = one["warm_ms"]
        lines += ["", f"{curve}, digests ready:"]
        lines.append(
            f"  warm, bundle of {one['warm_images_a_bundle']:,}: p50 {warm['p50']:.2f} ms, p99 {warm['p99']:.2f} ms"
            f"  goal {WARM_GOAL_MS:g} ms: {_met(warm['p99'], WARM_GOAL_MS)}"
        )
        lines += [f"  cold, bundle of {int(size):,}: {Spread(**took).text()} ms" for size, took in one["cold_ms"].items()]
    return "\n".join(lines)


def _met(value: float, goal: float) -> str:
    return "met" if value <= goal else "missed"


if __name__ == "__main__":
    main()
