"""The log's speed: append rate, proof time, tile reads, mirror and check, beside the floor of hashing the entries.

    python benchmarks/log.py [LEAVES] [BATCH]

LEAVES is 1,000,000 and BATCH 10,000 unless given. Entries are 352 bytes, as records are. Runs in a temporary folder.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.core import merkle
from ledger.core.merkle import Tile
from ledger.log import Log, check
from ledger.store import LogStore, open_store

ORIGIN = "example.org/benchmark"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = KEY.public_key().public_bytes_raw()
PROOFS = 2000
SINGLE_APPENDS = 200


class CountingStore(LogStore):
    """The store, counting the tiles that are read from it."""

    tiles_read = 0

    def tiles(self, tiles: Sequence[Tile]) -> list[bytes]:
        self.tiles_read += len(tiles)
        return super().tiles(tiles)


def entries(start: int, stop: int) -> list[bytes]:
    return [number.to_bytes(8, "big") * 44 for number in range(start, stop)]


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def percentile(times: Sequence[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def say(what: str, value: str) -> None:
    print(f"{what:<44} {value}")


def main(leaves: int = 1_000_000, batch: int = 10_000) -> None:
    chunks = [(start, min(start + batch, leaves)) for start in range(0, leaves, batch)]

    floor = 0.0
    hashes: list[bytes] = []
    for start, stop in chunks:
        bodies = entries(start, stop)
        floor += timed(lambda bodies=bodies: hashes.extend(map(merkle.leaf_hash, bodies)))  # type: ignore[misc]
    nodes = timed(lambda: merkle.root_of(hashes))
    say(f"floor: hash {leaves:,} entries of 352 bytes", f"{floor:.2f} s, {leaves / floor:,.0f} /s")
    say("floor: hash the nodes above them", f"{nodes:.2f} s")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = open_store(folder / "store.db")
        storage = CountingStore(store)
        log = Log(storage, ORIGIN, PUBLIC_KEY, KEY.sign)
        appended = 0.0
        for start, stop in chunks:
            bodies = entries(start, stop)
            appended += timed(lambda bodies=bodies: log.append(bodies))  # type: ignore[misc]
        say(f"append, {batch:,} a batch", f"{appended:.2f} s, {leaves / appended:,.0f} /s, {appended / floor:.1f} x the floor")
        head = log.head()
        if head.root != merkle.root_of(hashes):
            raise SystemExit("the log's root is not the one of its entries")

        rng = random.Random(1)
        times, reads = [], []
        for _ in range(PROOFS):
            index = rng.randrange(leaves)
            storage.tiles_read = 0
            start_s = time.perf_counter()
            proof = log.inclusion_proof(index, head.size)
            times.append(time.perf_counter() - start_s)
            reads.append(storage.tiles_read)
            merkle.verify_inclusion(hashes[index], index, head.size, proof, head.root)
        p50, p99 = percentile(times, 0.5) * 1e3, percentile(times, 0.99) * 1e3
        say(f"inclusion proof, {PROOFS:,} random leaves", f"p50 {p50:.2f} ms, p99 {p99:.2f} ms")
        say("tile reads for a proof", f"mean {sum(reads) / len(reads):.2f}, most {max(reads)}")
        say("one proof by rebuilding the tree instead", f"{nodes * 1e3:.0f} ms, all {leaves:,} leaf hashes")

        if leaves > 1:
            times = [timed(lambda: log.consistency_proof(rng.randrange(1, leaves), leaves)) for _ in range(200)]
            say("consistency proof, 200 random sizes", f"p50 {percentile(times, 0.5) * 1e3:.2f} ms")
        times = [timed(lambda at=at: log.append(entries(at, at + 1))) for at in range(SINGLE_APPENDS)]  # type: ignore[misc]
        p50, p99 = percentile(times, 0.5) * 1e3, percentile(times, 0.99) * 1e3
        say("append of a single entry", f"p50 {p50:.2f} ms, p99 {p99:.2f} ms")

        say("export of a new mirror", f"{timed(lambda: log.export(folder / 'mirror')):.2f} s")
        say("export again, nothing new", f"{timed(lambda: log.export(folder / 'mirror')):.2f} s")
        checked = timed(lambda: check(folder / "mirror", ORIGIN, PUBLIC_KEY))
        say("check of the mirror", f"{checked:.2f} s, {checked / (floor + nodes):.1f} x hashing it")
        store.close()
        say("database", f"{(folder / 'store.db').stat().st_size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
