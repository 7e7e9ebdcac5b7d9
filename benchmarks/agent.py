"""The signing agent between a sender and a PACS: how many images a second go through, and what it adds to each.

    python -m benchmarks.agent [--ct 300] [--cr 30] [--rounds 3] [--singles 100] [--json]

Real components on this machine: DCMTK's storescu sends, Orthanc is the PACS, anvil the chain; the agent runs as its users run
it, sealing and anchoring meanwhile. *Direct*: storescu straight into the same Orthanc. *Through*: storescu into the agent,
until Orthanc has the last image. Both take turns, with files that the emptied Orthanc has not seen. *Latency*: images sent one
at a time; the answer to the sender, and the time until Orthanc has the image (by its own count). Needs storescu and Orthanc.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import files, rounds
from benchmarks.files import Modality
from ledger.agent.association import Association, Peer
from ledger.dicom.elements import read_meta
from tests.journeys.conftest import free_port, make_site
from tests.journeys.orthanc import Orthanc, orthanc

SETTINGS = """
[health]
port = {health}
[spool]
keep_s = 0
min_free_mb = 10
[[destination]]
name = "pacs"
host = "127.0.0.1"
port = {pacs}
ae_title = "ORTHANC"
[[source]]
name = "ct1"
kind = "dicom"
role = "acquire"
device = "ct1"
port = {port}
allow = [{{ ae_title = "CT1", address = "127.0.0.1" }}]
destination = "pacs"
"""
PATIENCE_S = 300.0


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    with tempfile.TemporaryDirectory(prefix="scanseal-agent-") as folder, _running(Path(folder)) as (pacs, port, health):
        measured: dict[str, Any] = {}
        for modality, count in (("CT", options.ct), ("CR", options.cr)):
            if count:
                measured[modality] = _throughput(Path(folder), modality, count, options.rounds, pacs, port)  # type: ignore[arg-type]
        if options.singles:
            measured["latency"] = _latency(Path(folder), options.singles, pacs, port)
        measured["sealed"] = _all_sealed(health)
    result = {"machine": rounds.machine()} | measured
    print(json.dumps(result, indent=2, default=vars) if options.json else _text(result))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ct", type=int, default=300, help="CT images of 512 x 512 in a round (default 300; 0: none)")
    parser.add_argument("--cr", type=int, default=30, help="CR images of 9 MB in a round (default 30; 0: none)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default 3)")
    parser.add_argument("--singles", type=int, default=100, help="CT images sent one at a time (default 100; 0: none)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    return parser.parse_args(arguments)


@contextmanager
def _running(folder: Path) -> Iterator[tuple[Orthanc, int, int]]:
    """(PACS, the agent's port, the port of its health)."""
    site = make_site(folder / "site")
    port, health = free_port(), free_port()
    made = ("--manufacturer", "GE MEDICAL SYSTEMS", "--model", "RHAPSODE", "--serial", "1", "--ae", "CT1")
    site.run("device", "request", "ct1", *made)
    site.run("device", "approve", "ct1")
    with orthanc(folder / "orthanc") as pacs:
        (site.folder / "agent.toml").write_text(SETTINGS.format(health=health, pacs=pacs.dicom_port, port=port))
        log = (folder / "agent.log").open("wb")
        agent = subprocess.Popen(
            [sys.executable, "-m", "ledger.cli", "agent", "run"],
            env=os.environ | {"SCANSEAL_SITE": str(site.folder)},
            stderr=log,
        )
        try:
            _until(lambda: "running" in (folder / "agent.log").read_text(), "the agent does not run")
            time.sleep(3.0)
            yield pacs, port, health
        finally:
            agent.terminate()
            agent.wait(60)
            site.run("devnet", "down", expect=None)


def _throughput(folder: Path, modality: Modality, count: int, turns: int, pacs: Orthanc, port: int) -> dict[str, Any]:
    numbers = iter(range(1_000_000))

    def sent(ae_title: str, to: int) -> rounds.Took:
        images = folder / "images"
        _make(images, modality, count, next(numbers))
        _empty(pacs)
        started = time.perf_counter()
        _storescu(ae_title, to, images)
        _until(lambda: _stored(pacs) >= count, "the PACS does not get the images")
        took = rounds.Took(time.perf_counter() - started, 0.0)
        shutil.rmtree(images)
        return took

    actions = {"direct": lambda: sent("ORTHANC", pacs.dicom_port), "through": lambda: sent("SCANSEAL", port)}
    took = rounds.in_turns(actions, turns, f"{modality} through the agent")
    ratios = [direct.wall / through.wall for direct, through in zip(took["direct"], took["through"], strict=True)]
    return {
        "images": count,
        "direct_per_s": rounds.Spread.of([count / one.wall for one in took["direct"]]),
        "through_per_s": rounds.Spread.of([count / one.wall for one in took["through"]]),
        "ratio": rounds.Spread.of(ratios),
    }


def _latency(folder: Path, count: int, pacs: Orthanc, port: int) -> dict[str, Any]:
    images = folder / "singles"
    _make(images, "CT", 2 * count, 999)
    _empty(pacs)
    paths = sorted(images.iterdir())
    peers = {
        "direct": Peer("Orthanc", "127.0.0.1", pacs.dicom_port, "ORTHANC", "CT1"),
        "through": Peer("the agent", "127.0.0.1", port, "SCANSEAL", "CT1"),
    }
    answered: dict[str, list[float]] = {}
    arrived: dict[str, list[float]] = {}
    done = 0
    for number, (name, peer) in enumerate(peers.items()):
        meta = read_meta(paths[0].read_bytes()[:65_536])
        if meta is None:
            raise SystemExit("a test file has no meta information")
        context = (meta.storage_class, meta.transfer_syntax)
        association = Association(peer, [context])
        for path in paths[number * count : (number + 1) * count]:
            data = path.read_bytes()
            head = read_meta(data[:65_536])
            if head is None:
                raise SystemExit("a test file has no meta information")
            started = time.perf_counter()
            if association.store(context, head.instance, memoryview(data)[head.offset :]) != 0:
                raise SystemExit(f"{peer.name} refuses an image")
            answered.setdefault(name, []).append(time.perf_counter() - started)
            done += 1
            while _stored(pacs) < done:
                time.sleep(0.001)
            arrived.setdefault(name, []).append(time.perf_counter() - started)
        association.release()
    return {
        "images": count,
        "answer_ms": {name: _percentiles(values) for name, values in answered.items()},
        "in_pacs_ms": {name: _percentiles(values) for name, values in arrived.items()},
    }


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100) if len(values) > 1 else [values[0]] * 99
    return {"p50": round(cuts[49] * 1000, 2), "p99": round(cuts[98] * 1000, 2)}


def _make(folder: Path, modality: Modality, count: int, run: int) -> None:
    """Images that no round before had: instances and pixels differ by run."""
    for one in files.make(folder, modality, count):
        data = bytearray(one.path.read_bytes())
        data[one.start : one.start + 4] = run.to_bytes(4, "little")
        mark = f"{files.ROOT_UID}.".encode()
        one.path.write_bytes(bytes(data).replace(mark, mark[:-3] + f"{run % 90 + 10}.".encode()))


def _storescu(ae_title: str, port: int, images: Path) -> None:
    command = ["storescu", "-aet", "CT1", "-aec", ae_title, "+sd", "127.0.0.1", str(port), str(images)]
    subprocess.run(command, check=True, env=os.environ | {"TCP_NODELAY": "1"})


def _stored(pacs: Orthanc) -> int:
    return int(json.loads(pacs.call("/statistics"))["CountInstances"])


def _empty(pacs: Orthanc) -> None:
    for patient in json.loads(pacs.call("/patients")):
        pacs.delete(f"/patients/{patient}")


def _all_sealed(port: int) -> dict[str, int]:
    """What the agent says of its seals when everything has been sealed."""
    found: dict[str, int] = {}

    def is_done() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=30) as answer:
            found.update(json.load(answer)["seal"])
        return not found.pop("waiting", 0)

    _until(is_done, "the agent does not seal")
    return found


def _until(holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(otherwise)
        time.sleep(0.02)


def _text(result: dict[str, Any]) -> str:
    lines = []
    for modality in ("CT", "CR"):
        if modality in result:
            one = result[modality]
            lines.append(
                f"{modality}: direct {one['direct_per_s'].text(1)} images/s, through {one['through_per_s'].text(1)}, "
                f"ratio {one['ratio'].text()} (goal 0.9)"
            )
    if "latency" in result:
        for what, word in (("answer_ms", "answer"), ("in_pacs_ms", "in the PACS")):
            for name, values in result["latency"][what].items():
                lines.append(f"{word}, {name}: p50 {values['p50']} ms, p99 {values['p99']} ms")
    lines.append(f"sealed: {result['sealed']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
