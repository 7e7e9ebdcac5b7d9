"""Sealing and verifying image files, beside the floor of reading and hashing them, and beside other tools.

    python -m benchmarks.seal_verify [--ct 128] [--cr 32] [--rounds 15] [--cores 1] [--c2pa-python PATH] [--json]

Files are on disk and in the page cache. *Floor*: read the file, SHA-256 of its pixel bytes with hashlib. *Seal*: the whole way
of `scanseal seal`: find and read the file, strict parse, px1 digest, attributes, commitment, EIP-712 signature, and the journal
in SQLite on disk, synced once a batch of 64. *Verify*: the whole way of `scanseal verify --offline` against one bundle with
final anchors. Everything on one core unless `--cores` says otherwise. A ratio is the median over the rounds of product / floor,
each taken in the same round; the one of processor time is the steadier on a busy machine, and leaves out waiting for the disk.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from benchmarks import files, peers, rounds
from benchmarks.files import ImageFile, Modality
from benchmarks.product import Site, verified
from benchmarks.rounds import Action, Took
from ledger.keys.signers import Curve
from ledger.wiring.verification import Verifier

GOALS: dict[Modality, float] = {"CT": 2.5, "CR": 1.5}
"""Times the floor."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    with tempfile.TemporaryDirectory(prefix="scanseal-benchmark-") as name, rounds.cores(options.cores):
        result = {"machine": rounds.machine() | {"cores": options.cores}, "rounds": options.rounds} | _measured(
            options, Path(name)
        )
    print(json.dumps(result, indent=2) if options.json else _text(result))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ct", type=int, default=128, help="CT files (default 128)")
    parser.add_argument("--cr", type=int, default=32, help="CR files (default 32)")
    parser.add_argument("--ct-edge", type=int, default=files.EDGE["CT"], help="rows and columns of a CT (default 512)")
    parser.add_argument("--cr-edge", type=int, default=files.EDGE["CR"], help="rows and columns of a CR (default 2140)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of floor and product (default 15)")
    parser.add_argument("--cores", type=int, default=1, help="cores that everything runs on (default 1)")
    parser.add_argument("--peer-files", type=int, default=16, help="files that the peers sign; 0 leaves them out (default 16)")
    parser.add_argument("--peer-rounds", type=int, default=5, help="rounds of the peers (default 5)")
    parser.add_argument("--c2pa-python", help="a Python that has c2pa-health-imaging (default: this one)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    return parser.parse_args(arguments)


def _measured(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    images: dict[str, Any] = {}
    compared: dict[str, Any] = {}
    missing: list[str] = []
    sizes: dict[Modality, tuple[int, int]] = {"CT": (options.ct, options.ct_edge), "CR": (options.cr, options.cr_edge)}
    for modality, (count, edge) in sizes.items():
        if not count:
            continue
        rounds.say(f"{modality}: making {count} files")
        made = files.make(folder / modality, modality, count, edge)
        images[modality] = _product(folder, modality, made, edge, options.rounds)
        if options.peer_files:
            found, missing = peers.present(folder / f"{modality}-peers", options.c2pa_python)
            compared[modality] = _peers(found, made[: options.peer_files], options.peer_rounds, modality)
    return {"images": images, "peers": compared, "missing": missing}


# ---- the product ----------------------------------------------------------------------------------------------------


def _product(folder: Path, modality: Modality, made: Sequence[ImageFile], edge: int, count: int) -> dict[str, Any]:
    actions: dict[str, Action] = {"floor": lambda: rounds.timed(lambda: _floor(made))}
    curves: tuple[Curve, ...] = get_args(Curve)
    for curve in curves:
        site = Site(folder, curve)
        rounds.say(f"{modality}: making the evidence for {curve}")
        actions[f"seal {curve}"] = _sealing(site, made)
        actions[f"verify {curve}"] = _verifying(site.verifier(site.bundle(made)), made)
    took = rounds.in_turns(actions, count, modality)
    return {
        "files": len(made),
        "bytes_each": made[0].path.stat().st_size,
        "goal": GOALS[modality] if edge == files.EDGE[modality] else None,
        "measured": {name: _row(one, took["floor"], len(made)) for name, one in took.items()},
    }


def _floor(made: Sequence[ImageFile]) -> None:
    for file in made:
        data = file.path.read_bytes()
        hashlib.sha256(memoryview(data)[file.start : file.end]).digest()


def _sealing(site: Site, made: Sequence[ImageFile]) -> Action:
    return lambda: site.seal(made)


def _verifying(verifier: Verifier, made: Sequence[ImageFile]) -> Action:
    return lambda: verified(verifier, made)


def _row(took: Sequence[Took], floor: Sequence[Took], count: int) -> dict[str, Any]:
    milliseconds = rounds.each(took, count)
    return {
        "ms_each": asdict(milliseconds),
        "images_per_s": 1e3 / milliseconds.median,
        "ratio_wall": asdict(rounds.ratio(took, floor, "wall")),
        "ratio_cpu": asdict(rounds.ratio(took, floor, "cpu")),
    }


# ---- the peers ------------------------------------------------------------------------------------------------------


def _peers(found: Sequence[peers.Peer], made: Sequence[ImageFile], count: int, modality: Modality) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for peer in found:
        try:
            floor: dict[str, Action] = {"floor": lambda: rounds.timed(lambda: _floor(made))}
            took = rounds.in_turns(floor | peer.actions(made), count, f"{modality}, {peer.name}")
        finally:
            peer.close()
        rows = {name: _row(one, took["floor"], len(made)) for name, one in took.items()}
        for name in ("sign", "verify"):
            if "--version" in took:
                net = [
                    Took(one.wall - start.wall, one.cpu - start.cpu)
                    for one, start in zip(took[name], took["--version"], strict=True)
                ]
                rows[f"{name}, without process start"] = _row(net, took["floor"], len(made))
        result[peer.name] = {"version": peer.version, "note": peer.note, "files": len(made), "measured": rows}
    return result


# ---- for people -----------------------------------------------------------------------------------------------------


def _text(result: dict[str, Any]) -> str:
    machine = result["machine"]
    lines = [f"{machine['processor']}; {machine['cores']} core(s) used; Python {machine['python']}"]
    for modality, one in result["images"].items():
        lines += ["", f"{modality}: {one['files']} files of {one['bytes_each']:,} bytes, {result['rounds']} rounds"]
        lines += _table(one["measured"], lambda name, row, goal=one["goal"]: _judged(name, row, goal))  # type: ignore[misc]
        for name, peer in result["peers"].get(modality, {}).items():
            lines += ["", f"{modality}, {name} {peer['version']}: {peer['files']} files; {peer['note']}"]
            lines += _table(peer["measured"], lambda _name, _row: "")
    lines += [""] * bool(result["missing"]) + [f"left out: {what}" for what in result["missing"]]
    return "\n".join(lines)


def _table(rows: dict[str, Any], judged: Callable[[str, dict[str, Any]], str]) -> list[str]:
    lines = [f"  {'':<31}{'images/s':>8}   {'ms an image':<26}{'x floor, wall':<26}x floor, processor"]
    for name, row in rows.items():
        spreads = (rounds.Spread(**row[key]).text() for key in ("ms_each", "ratio_wall", "ratio_cpu"))
        columns = "".join(f"{spread:<26}" for spread in spreads)
        lines.append(f"  {name:<31}{row['images_per_s']:>8,.0f}   {columns}{judged(name, row)}".rstrip())
    return lines


def _judged(name: str, row: dict[str, Any], goal: float | None) -> str:
    if name == "floor" or goal is None:
        return ""
    return f"goal {goal}: {'met' if row['ratio_wall']['median'] <= goal else 'missed'}"


if __name__ == "__main__":
    main()
