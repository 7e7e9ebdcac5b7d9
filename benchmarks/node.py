"""A log node under many agents at once: how many records a second it takes, and how soon each can be proven.

    python -m benchmarks.node [--agents 16] [--records 12000] [--batches 1 64 256] [--json]

`scanseal serve` runs as its users run it, on a site of its own with anvil as the chain; the agents are threads of this process
on the same machine, each with a key, a token and a connection, and send records that were signed before. *Taken*: answered by
the node, which has them on disk then. *Provable*: a published, signed checkpoint has the record; at the end the whole log is
read over HTTP and must lead to the signed root, with each record once. In the same run, what the machine can do at best:
signatures checked on one core, and the same records written to SQLite with one synced transaction a request.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import rounds
from ledger.core import merkle, signatures
from ledger.core.certificates import Device
from ledger.core.checkpoint import Checkpoint, parse_and_verify
from ledger.core.records import AcquisitionRecord, SignedRecord
from ledger.core.trust import TrustedLog
from ledger.core.typeddata import Domain
from ledger.keys import authority
from ledger.keys.signers import Curve, new_key
from ledger.log.submission import NO_RECORD
from ledger.wiring.site import read_site
from tests.journeys.conftest import Site, free_port, make_site

GOAL_PER_S = 3000
GOAL_S = 1.0
PATIENCE_S = 120.0
LOOK_S = 0.05
SITES: tuple[Curve, Curve] = ("secp256k1", "p256")


@dataclass
class Agent:
    """One sender: its key's certificate, its token, and the requests that it sends."""

    certificate: bytes
    public_key: bytes
    token: str = ""
    signed: list[tuple[bytes, bytes]] = field(default_factory=list)
    """(record id, log entry)"""
    answered: dict[bytes, float] = field(default_factory=dict)
    """log entry -> when its request was answered"""
    took: list[float] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    measured = {}
    for batch in options.batches:
        with tempfile.TemporaryDirectory(prefix="scanseal-node-") as folder:
            measured[str(batch)] = _measured(Path(folder), options.agents, max(1, options.records // options.agents), batch)
            rounds.say(f"{batch} records a request: done")
    result = {"machine": rounds.machine(), "agents": options.agents, "requests_of": measured}
    print(json.dumps(result, indent=2) if options.json else _text(result))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=16, help="senders at once (default 16)")
    parser.add_argument("--records", type=int, default=12_000, help="records of all of them (default 12,000)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 256], help="records a request (default 1 64 256)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    return parser.parse_args(arguments)


def _measured(folder: Path, count: int, records: int, batch: int) -> dict[str, Any]:
    with _serving(folder) as (site, port):
        here = read_site(site.folder)
        trusted = here.trust().logs[0]
        issuer = authority.load_authority(here.ca_folder, here.passphrase())
        agents = [_agent(issuer, SITES[number % 2], here.trust().domain, records) for number in range(count)]
        for number, agent in enumerate(agents):
            agent.token = site.run("node", "client", "add", f"Site {number}").stdout.strip()
        requests = {id(agent): _requests(agent, batch) for agent in agents}
        with _watching(port, trusted) as seen, ThreadPoolExecutor(count) as pool:
            began = time.perf_counter()
            list(pool.map(lambda agent: _send(agent, port, requests[id(agent)]), agents))
            took = time.perf_counter() - began
            _until(lambda: seen[-1][1] >= count * records, "not all records come into the log")
        waited = _waited(agents, port, trusted, seen)
        answered = [one for agent in agents for one in agent.took]
        return {
            "records": count * records,
            "per_s": count * records / took,
            "answer_ms": _percentiles(answered),
            "provable_after_ms": _percentiles(waited),
            "limit": {
                "signature_checks_per_s_and_core": {
                    curve: _checks_per_s(agents[number]) for number, curve in enumerate(SITES) if number < count
                },
                "synced_writes": _synced(folder, agents, batch),
            },
        }


@contextmanager
def _serving(folder: Path) -> Iterator[tuple[Site, int]]:
    """A site's node as a process of its own, and its port."""
    site = make_site(folder / "site")
    port = free_port()
    with (site.folder / "site.toml").open("a") as file:
        # The agents share a machine, and with it an address.
        file.write("\n[serve]\nrequests_per_s = 1000000\nburst = 1000000\nrecords_per_s = 1000000\nrecord_burst = 1000000\n")
    with (folder / "node.log").open("wb") as log:
        node = subprocess.Popen(
            [sys.executable, "-m", "ledger.cli", "serve", "--listen", f"127.0.0.1:{port}"],
            env=os.environ | {"SCANSEAL_SITE": str(site.folder)},
            stderr=log,
        )
    try:
        _until(lambda: '"serving"' in (folder / "node.log").read_text(), "the node does not run")
        yield site, port
    finally:
        node.terminate()
        node.wait(60)
        site.run("devnet", "down", expect=None)


def _agent(issuer: authority.Authority, curve: Curve, domain: Domain, records: int) -> Agent:
    """A key with its certificate, and so many signed records."""
    signer = new_key(curve)
    request = authority.request(Device("Acme", "CT 3000", "42", "CT1", "Site"), signer)
    agent = Agent(issuer.issue(request, datetime.now(UTC)).der, signer.public_key_der)
    previous = NO_RECORD
    for counter in range(records):
        content = counter.to_bytes(32, "big")
        record = AcquisitionRecord(
            content, "px1-sha256/attributes-1", signer.key, counter, previous, 1_800_000_000, 7, b"\7" * 32
        )
        previous = record.id(domain)
        agent.signed.append((previous, SignedRecord(record, signer.sign(previous)).entry()))
    return agent


def _requests(agent: Agent, batch: int) -> list[tuple[list[bytes], bytes]]:
    """(entries, body) of each request."""
    requests = []
    for start in range(0, len(agent.signed), batch):
        entries = [entry for _, entry in agent.signed[start : start + batch]]
        body = {
            "records": [base64.b64encode(entry).decode() for entry in entries],
            "certificates": [base64.b64encode(agent.certificate).decode()],
        }
        requests.append((entries, json.dumps(body).encode()))
    return requests


def _send(agent: Agent, port: int, requests: Sequence[tuple[list[bytes], bytes]]) -> None:
    headers = {"Authorization": f"Bearer {agent.token}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    for entries, body in requests:
        started = time.perf_counter()
        connection.request("POST", "/v1/records", body, headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status not in (200, 202):
            raise SystemExit(f"the node refuses records: {answer.status} {said[:300]!r}")
        now = time.perf_counter()
        agent.took.append(now - started)
        agent.answered |= dict.fromkeys(entries, now)
    connection.close()


@contextmanager
def _watching(port: int, trusted: TrustedLog) -> Iterator[list[tuple[float, int]]]:
    """(when, size) of each published checkpoint that was seen, its signature checked."""
    seen: list[tuple[float, int]] = [(time.perf_counter(), 0)]
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(LOOK_S):
            head = _checkpoint(connection, trusted)
            if head.size > seen[-1][1]:
                seen.append((time.perf_counter(), head.size))

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(PATIENCE_S)
        connection.close()


def _waited(agents: Sequence[Agent], port: int, trusted: TrustedLog, seen: Sequence[tuple[float, int]]) -> list[float]:
    """Of each record, the seconds from its answer until a checkpoint had it; 0 where one had it before."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    head = _checkpoint(connection, trusted)
    entries: list[bytes] = []
    for tile in merkle.tiles_between(0, head.size):
        if tile.level == 0:
            entries += merkle.unpack_entries(_read(connection, merkle.entries_path(tile.index, tile.width)))
    if merkle.root_of([merkle.leaf_hash(entry) for entry in entries]) != head.root:
        raise SystemExit("the log does not lead to its signed root")
    answered = {entry: at for agent in agents for entry, at in agent.answered.items()}
    if len(entries) != len(answered) or set(entries) != answered.keys():
        raise SystemExit(f"{len(answered)} records were taken, and the log has {len(entries)}: some are lost, or there twice")
    sizes = [size for _, size in seen]
    return [max(0.0, seen[bisect_right(sizes, index)][0] - answered[entry]) for index, entry in enumerate(entries)]


def _checkpoint(connection: http.client.HTTPConnection, trusted: TrustedLog) -> Checkpoint:
    return parse_and_verify(_read(connection, "checkpoint"), trusted.origin, trusted.key)


def _read(connection: http.client.HTTPConnection, path: str) -> bytes:
    connection.request("GET", f"/v1/{path}")
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise SystemExit(f"the node refuses {path}: {answer.status} {content[:300]!r}")
    return content


def _checks_per_s(agent: Agent) -> float:
    """Signatures of an agent's records checked on one core."""
    sample = agent.signed[:1000]

    def check() -> None:
        for record_id, entry in sample:
            signatures.check(agent.public_key, record_id, entry[-64:])

    return len(sample) / rounds.timed(check).wall


def _synced(folder: Path, agents: Sequence[Agent], batch: int) -> dict[str, float]:
    """The same records as rows of SQLite: transactions of one request each, synced, and records, in a second."""
    rows = [entry for agent in agents for _, entry in agent.signed][: 256 * batch]
    connection = sqlite3.connect(folder / "floor.sqlite", isolation_level=None)
    for setting in ("journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {setting}")
    connection.execute("CREATE TABLE entry (number INTEGER PRIMARY KEY, body BLOB)")

    def write() -> None:
        for start in range(0, len(rows), batch):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO entry (body) VALUES (?)", [(row,) for row in rows[start : start + batch]])
            connection.execute("COMMIT")

    took = rounds.timed(write).wall
    connection.close()
    return {"transactions_per_s": -(-len(rows) // batch) / took, "records_per_s": len(rows) / took}


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    return {
        "p50": rounds.percentile(values, 0.5) * 1e3,
        "p99": rounds.percentile(values, 0.99) * 1e3,
        "most": max(values) * 1e3,
    }


def _until(holds: Any, otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(otherwise)
        time.sleep(0.02)


def _text(result: dict[str, Any]) -> str:
    lines = [f"{result['agents']} agents at once"]
    for batch, one in result["requests_of"].items():
        limit = one["limit"]
        checks = ", ".join(f"{per_s:,.0f} {curve}" for curve, per_s in limit["signature_checks_per_s_and_core"].items())
        met = "met" if one["per_s"] >= GOAL_PER_S else "missed"
        soon = "met" if one["provable_after_ms"]["p99"] <= GOAL_S * 1e3 else "missed"
        lines += [
            f"\n{batch} records a request, {one['records']:,} records",
            f"  taken, on disk        {one['per_s']:,.0f} /s (goal {GOAL_PER_S:,}: {met})",
            f"  an answer             p50 {one['answer_ms']['p50']:.0f} ms, p99 {one['answer_ms']['p99']:.0f} ms",
            f"  then provable after   p50 {one['provable_after_ms']['p50']:.0f} ms,"
            f" p99 {one['provable_after_ms']['p99']:.0f} ms (goal {GOAL_S * 1e3:,.0f}: {soon})",
            f"  limit: signatures     {checks} /s and core",
            f"  limit: synced writes  {limit['synced_writes']['transactions_per_s']:,.0f} requests /s,"
            f" {limit['synced_writes']['records_per_s']:,.0f} records /s",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
