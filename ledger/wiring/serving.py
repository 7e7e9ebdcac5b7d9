"""A log node on a site's store: takes records, many requests with one durable write, and answers for `ledger.web`."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from ledger.core import certificates, signatures
from ledger.core.certificates import Certificate
from ledger.core.errors import EvidenceInvalid, FixInput, ScanSealError, TryLater
from ledger.core.merkle import TILE_WIDTH, Tile, pack_entries
from ledger.core.trust import Trust
from ledger.log import Log
from ledger.log.anchoring import ORDER, AnchorRow
from ledger.log.submission import Offered, Submission, by_key, read
from ledger.store import LogStore
from ledger.store.anchors import AnchorStore
from ledger.store.deposited import DepositStore
from ledger.store.engine import Store
from ledger.store.submitted import Placed, SiteQueue, SubmittedStore
from ledger.web import Busy, Health, Limits, Meter, Standing
from ledger.web.node import State
from ledger.wiring.site import read_trust

GROUP: Final = 16_384
"""Records in one durable write."""
PATIENCE_S: Final = 20.0
"""How long a request waits for its write."""
SLOW_S: Final = 30.0
"""A record that waits longer than this to be sequenced shows that the log is not published any more."""
DRAIN_S: Final = 5.0
NEWEST_FOR_S: Final = 10.0
"""How long a block of the chain is the newest one."""


class Loop(Protocol):
    """What puts records into the log, and the log onto the chain."""

    def run(self, stop: threading.Event) -> None: ...

    def wake(self) -> None:
        """Has what was taken just now sequenced at once."""

    def status(self) -> Any:
        """`ledger.wiring.standing.Status`."""


class TrustFile:
    """A trust file, read again whenever it was changed: an authority that is added counts at once."""

    def __init__(self, path: Path) -> None:
        """Raises FixInput where it cannot be read; what it becomes later that cannot be read does not count."""
        self._path = path
        self._stamp, self._trust = self._look(), read_trust(path)

    def __call__(self) -> Trust:
        with suppress(FixInput):
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp, self._trust = stamp, read_trust(self._path)
        return self._trust

    def _look(self) -> tuple[int, int, int]:
        with suppress(OSError):
            found = self._path.stat()
            return found.st_mtime_ns, found.st_ino, found.st_size
        return 0, 0, 0


# ---- taking records -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Waiting:
    submission: Submission
    answer: Future[list[Placed]]


class Intake:
    """Checks what is handed in, and writes what many requests hand in at once with one durable write."""

    def __init__(
        self,
        store: SubmittedStore,
        depth: Callable[[], int],
        trust: Callable[[], Trust],
        clock: Callable[[], float],
        taken: Callable[[int], None],
        limit: int,
    ) -> None:
        """`depth`: records that wait to be sequenced, `limit`: how many may; `taken` is told how many were new."""
        self._store, self._depth, self._trust, self._clock = store, depth, trust, clock
        self._taken, self._limit = taken, limit
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="intake", daemon=True)
        self._full = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends after everything that was asked for before."""
        self._waiting.put(None)
        self._thread.join(PATIENCE_S)

    def submit(self, client: str, entries: Sequence[bytes], ders: Sequence[bytes]) -> list[Placed]:
        """Takes all of these, or none. Raises as `ledger.web.Node.submit`.

        1. each entry is a record of FORMAT.md §3, those of a key one after the other;
        2. each key has a certificate, which an authority of the trust file issued, both valid now;
        3. each record that is not known yet is signed by its key;
        4. it follows what is known of its key, and then is on disk.
        """
        if self._full and self._depth() >= self._limit:
            raise Busy(f"{self._limit} records wait to be put into the log: hand in again later, nothing is lost")
        trust = self._trust()
        # 1
        offered = tuple(read(entry, trust.domain) for entry in entries)
        keys = by_key(offered)
        # 2
        holders = self._holders(keys, ders, trust)
        # 3
        known = self._known(keys)
        for one in offered:
            if one.entry not in known:
                _check(holders[one.signer], one)
        # 4
        given = {key: holders[key].der for key in keys}
        waiting = _Waiting(Submission(client, offered, given), Future())
        self._waiting.put(waiting)
        try:
            return waiting.answer.result(PATIENCE_S)
        except TimeoutError as error:
            raise Busy("the store does not write now: hand in again, what was taken by then is known") from error

    def _holders(self, keys: Iterable[bytes], ders: Sequence[bytes], trust: Trust) -> dict[bytes, Certificate]:
        given = {certificate.key: certificate for certificate in map(certificates.parse, ders)}
        holders = {key: certificates.parse(der) for key, der in self._store.certificates(set(keys) - given.keys()).items()}
        holders |= given
        now = int(self._clock())
        issuers = [certificate for _, certificate in trust.issuers() if certificate.is_valid_at(now)]
        for key in keys:
            if key not in holders:
                raise EvidenceInvalid(
                    f"no certificate of key 0x{key.hex()} is known here: hand it in with the record", "certificate"
                )
            if not any(holders[key].is_issued_by(issuer) for issuer in issuers):
                raise EvidenceInvalid(
                    f"the certificate of key 0x{key.hex()} is issued by no authority that this node accepts: its operator has "
                    "to accept the site's authority first",
                    "certificate",
                )
            if not holders[key].is_valid_at(now):
                raise EvidenceInvalid(f"the certificate of key 0x{key.hex()} is not valid now", "certificate")
        return holders

    def _known(self, keys: dict[bytes, list[Offered]]) -> set[bytes]:
        held = (self._store.held(key, run[0].counter, run[-1].counter) for key, run in keys.items())
        return {placed.entry for found in held for placed in found.values()}

    def _write_all(self) -> None:
        while (first := self._waiting.get()) is not None:
            group, size = [first], len(first.submission.offered)
            ends = False
            with suppress(queue.Empty):
                while size < GROUP:
                    more = self._waiting.get_nowait()
                    if more is None:
                        ends = True
                        break
                    group.append(more)
                    size += len(more.submission.offered)
            self._write(group)
            if ends:
                return

    def _write(self, group: Sequence[_Waiting]) -> None:
        try:
            answers = self._store.accept([one.submission for one in group], int(self._clock() * 1e6))
            self._full = self._depth() >= self._limit
        except Exception as error:  # noqa: BLE001 - each request is told, and the next group is tried
            for one in group:
                one.answer.set_exception(error)
            return
        for one, answer in zip(group, answers, strict=True):
            if isinstance(answer, ScanSealError):
                one.answer.set_exception(answer)
            else:
                one.answer.set_result(answer)
        self._taken(sum(placed.is_new for answer in answers if isinstance(answer, list) for placed in answer))


def _check(holder: Certificate, offered: Offered) -> None:
    try:
        signatures.check(holder.public_key_der, offered.record_id, offered.signature)
    except EvidenceInvalid as error:
        raise EvidenceInvalid(f"record {offered.counter} of key 0x{offered.signer.hex()}: {error}", error.step) from error


# ---- the node -------------------------------------------------------------------------------------------------------


class LogNode:
    """`ledger.web.Node` on a store. Start it before it is asked."""

    def __init__(
        self,
        store: Store,
        log: Log,
        loop: Loop,
        trust: Callable[[], Trust],
        newest: Callable[[], bytes],
        meter: Meter,
        limits: Limits,
        clock: Callable[[], float] = time.time,
        drain_s: float = DRAIN_S,
    ) -> None:
        """`newest` asks the chain for the header of a recent block; `clock` in seconds since 1970; `drain_s`: how long an end
        waits for what was taken to come into the log."""
        self._store, self._log, self._loop, self._newest, self._clock = store, log, loop, newest, clock
        self._published, self._anchors = LogStore(store), AnchorStore(store)
        self._submitted, self._deposits, self._queue = SubmittedStore(store), DepositStore(store), SiteQueue(store)
        self._meter, self._drain_s = meter, drain_s
        self._intake = Intake(self._submitted, self._queue.depth, trust, clock, self._took, limits.queue)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=loop.run, args=(self._stop,), name="carrying")
        self._header: tuple[float, bytes] | None = None
        self._asking = threading.Lock()

    def start(self) -> None:
        self._thread.start()
        self._intake.start()

    def stop(self) -> None:
        """Ends after what was taken is in the log, as far as that goes within `drain_s`."""
        self._intake.stop()
        deadline = time.monotonic() + self._drain_s
        with suppress(TryLater):
            while self._queue.depth() and time.monotonic() < deadline:
                self._loop.wake()
                time.sleep(0.02)
        self._stop.set()
        self._loop.wake()
        self._thread.join(10)

    def _took(self, count: int) -> None:
        if count:
            self._meter.accepted.inc(count)
            self._loop.wake()

    # ---- records ----

    def client(self, token: str) -> str | None:
        return self._submitted.client(token)

    def submit(self, client: str, entries: Sequence[bytes], ders: Sequence[bytes]) -> list[Standing]:
        return [_standing(one, None) for one in self._intake.submit(client, entries, ders)]

    def record(self, record_id: bytes) -> Standing | None:
        placed = self._submitted.by_id(record_id)
        if placed is None:
            return None
        return _standing(placed, None if placed.log_index is None else self._anchors.state_of(placed.log_index))

    # ---- the log ----

    def checkpoint(self) -> str:
        return self._published.checkpoint() or self._log.checkpoint()

    def tile(self, tile: Tile) -> bytes | None:
        try:
            return self._published.tiles([tile])[0]
        except EvidenceInvalid:
            return None

    def entries(self, index: int, width: int) -> bytes | None:
        first = index * TILE_WIDTH
        try:
            return pack_entries(self._published.entries(first, first + width))
        except EvidenceInvalid:
            return None

    def anchors(self, after: int, limit: int) -> list[AnchorRow]:
        return self._anchors.final_above(after, limit)

    def header(self, block_hash: bytes | None) -> bytes | None:
        if block_hash is not None:
            return self._anchors.headers([block_hash]).get(block_hash)
        with self._asking:
            now = time.monotonic()
            if self._header is None or now - self._header[0] > NEWEST_FOR_S:
                try:
                    self._header = (now, self._newest())
                except TryLater:
                    if self._header is None:
                        raise
            return self._header[1]

    # ---- evidence ----

    def deposit(self, client: str, token: bytes, body: bytes) -> bool:
        return self._deposits.put(client, token, body, int(self._clock() * 1e6))

    def withdraw(self, client: str, token: bytes) -> bool:
        return self._deposits.remove(client, token)

    def deposited(self, token: bytes) -> list[bytes]:
        return self._deposits.get(token)

    # ---- health ----

    def health(self) -> Health:
        try:
            with self._store.writing():
                pass
            oldest, held, contradicting = self._queue.oldest(), self._submitted.held_keys(), self._queue.contradicting()
            status = self._loop.status()
        except ScanSealError as error:
            return Health(False, False, 0, None, 0, 0, None, 0, (str(error),))
        now = self._clock()
        waited = None if oldest is None else max(0.0, now - oldest / 1e6)
        troubles = [status.last_error] if status.last_error else []
        if held:
            troubles.append(f"{held} keys are used by two agents and refused: `scanseal node keys`")
        if contradicting:
            troubles.append(f"{contradicting} records of this site stay out of the log: another agent uses their key")
        return Health(
            True,
            self._thread.is_alive() and (waited is None or waited < SLOW_S),
            status.queued,
            waited,
            status.log_size,
            status.anchored_size,
            None if status.last_anchor_at is None else max(0.0, now - status.last_anchor_at),
            held,
            tuple(troubles),
            tuple(str(alarm) for alarm in status.alarms),
        )


def _standing(placed: Placed, state: str | None) -> Standing:
    if placed.log_index is None:
        return Standing(placed.record_id, "queued", None)
    found: State = state if state in ORDER else "sequenced"
    return Standing(placed.record_id, found, placed.log_index)
