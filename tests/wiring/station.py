"""A site with a real store and a real chain, whose loop is run by tests: in threads here, or in a process that dies.

    station.py FOLDER URL COUNT POINT   seals COUNT records, carries until all are final; SIGKILL at the numbered point

A point is a statement that writes, a commit of such, or a transaction on its way to the node, before and after.
Exit code: 0 all final, -9 died.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import event

from ledger.chain import Endpoint, FeePolicy, Ledger
from ledger.chain.devnet import account, make_block
from ledger.chain.rpc import Call
from ledger.core.contracts import Beacon
from ledger.core.trust import Trust, TrustedLog
from ledger.keys.signers import SoftwareSigner, new_key
from ledger.log import Log, check
from ledger.log.anchoring import Anchoring, AnchorRow
from ledger.log.schedule import Policy
from ledger.register import Sealable, Sealer
from ledger.store import LogStore, open_store
from ledger.store.anchors import AnchorStore
from ledger.store.journal import JournalStore
from ledger.store.payments import PaymentStore
from ledger.wiring.carrying import WORKER, Carrier
from tests.core.conftest import make_subject

ORIGIN = "example.org/log"
LOG_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = LOG_KEY.public_key().public_bytes_raw()
BEACON = Beacon(0, b"\7" * 32)
SUBJECT = make_subject()
AT_ONCE = Policy(interval_s=0)
QUICK = FeePolicy(resend_after_s=0.4, give_up_after_s=3, poll_s=0.05)
PATIENCE_S = 30
_numbers = itertools.count(os.getpid() << 20)


@dataclass
class Station:
    """The site of one test. `trust` without a log: it is opened by the first carrier's account."""

    folder: Path
    url: str
    trust: Trust
    fees: FeePolicy = QUICK
    timeout_s: float = 2
    now: Callable[[], float] = time.time
    signer: SoftwareSigner = field(default_factory=lambda: new_key("secp256k1"))
    believed: list[AnchorRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = open_store(self.folder / "store.sqlite")
        self.log = Log(LogStore(self.store), ORIGIN, PUBLIC_KEY, LOG_KEY.sign)
        self.journal, self.anchors = JournalStore(self.store), AnchorStore(self.store)
        self.payments = PaymentStore(self.store, lambda: self.now())
        self.sealer = Sealer(self.journal, self.signer, self.trust.domain, time.time)

    @property
    def node(self) -> Endpoint:
        return Endpoint(self.url)

    def ledger(self, *urls: str, **options: Any) -> Ledger:
        return Ledger.connect(
            [Endpoint(url, timeout_s=self.timeout_s) for url in urls or (self.url,)], self.trust, account(), **options
        )

    def open_log(self) -> None:
        log_id = self.ledger().open_log(PUBLIC_KEY)
        logs = (TrustedLog(origin=ORIGIN, log_id=log_id, key=PUBLIC_KEY),)
        self.trust = self.trust.model_copy(update={"logs": logs})

    def seal(self, count: int) -> None:
        """Writes new records into the journal."""
        images = [
            Sealable(dict(SUBJECT.attributes) | {"SOPInstanceUID": f"1.2.{next(_numbers)}"}, SUBJECT.digests["px1-sha256"])
            for _ in range(count)
        ]
        self.sealer.seal(images, BEACON, int(time.time()))

    def carrier(self, policy: Policy = AT_ONCE, *urls: str, **options: Any) -> Carrier:
        def connect(stop: threading.Event) -> Anchoring:
            ledger = self.ledger(*urls, fees=self.fees_of(policy), outbox=self.payments, stop=stop)
            return Anchoring(self.log, self.anchors, self.payments, ledger, self.trust.logs[0].log_id, self.trust.anchor_log)

        given: dict[str, Any] = {"let_time_pass": lambda: make_block(self.node), "clock": lambda: self.now()}
        given |= {"tick_s": 0.02, "settle_s": 0.05, "retry_s": (0.05, 0.4)} | options
        return Carrier(
            self.log,
            self.journal,
            self.anchors,
            self.payments,
            connect,
            policy,
            self.folder / "anchor.lock",
            believe=self.believed.extend,
            **given,
        )

    def fees_of(self, policy: Policy) -> FeePolicy:
        return FeePolicy(policy.ceiling_wei, self.fees.resend_after_s, self.fees.give_up_after_s, self.fees.poll_s)

    @contextmanager
    def running(self, policy: Policy = AT_ONCE, *urls: str, **options: Any) -> Iterator[Carrier]:
        """A loop in a thread, which must end in time."""
        carrier, stop = self.carrier(policy, *urls, **options), threading.Event()
        thread = threading.Thread(target=carrier.run, args=(stop,))
        thread.start()
        try:
            yield carrier
        finally:
            stop.set()
            thread.join(10)
        assert not thread.is_alive(), "the loop did not stop"

    def is_final(self) -> bool:
        """Whether everything that was sealed is final, and no anchor waits any more."""
        return (
            not self.anchors.unsettled()
            and self.journal.depth() == 0
            and self.anchors.final_size() == self.log.head().size == self.journal.counts()[0]
        )

    def assert_whole(self) -> None:
        """Every record is in the log once, and the chain has the log in a row of anchors without gap or fork, all proven."""
        head = check(LogStore(self.store), ORIGIN, PUBLIC_KEY)
        entries = list(self.log.entries(0, head.size))
        assert len(set(entries)) == len(entries) == self.journal.counts()[0]
        assert self.journal.next_index() == head.size
        assert self.journal.depth() == 0
        on_chain = self.on_chain()
        assert [old for old, _ in on_chain] == [0, *(new for _, new in on_chain)][:-1]
        assert on_chain[-1][1] == head.size
        rows = {row.new_size: row for row in self.anchors.rows()}
        for _, new in on_chain:
            assert rows[new].state == "final"
            assert rows[new].proof is not None
            assert rows[new].fee_wei is not None
        assert set(rows) == {new for _, new in on_chain}

    def on_chain(self) -> list[tuple[int, int]]:
        """(old size, new size) of each anchor that the node has events of, in order."""
        topics = [None, "0x" + self.trust.logs[0].log_id.hex()]
        asked = {"address": "0x" + self.trust.anchor_log.address.hex(), "fromBlock": "0x0", "topics": topics}
        opened = 1
        events = self.node.call("eth_getLogs", asked)[opened:]
        return [(int(one["data"][2:66], 16), int(one["topics"][2], 16)) for one in events]

    def close(self) -> None:
        self.store.close()


def wait_until(condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def wait_for_workers() -> None:
    """Until no thread of an ended loop waits for a node any more."""
    wait_until(lambda: not any(thread.name == WORKER for thread in threading.enumerate()))


# ---- a process that dies --------------------------------------------------------------------------------------------


class Points:
    """Counts what happens, and dies at one of them."""

    def __init__(self, deadly: int) -> None:
        self._deadly, self._passed, self._lock = deadly, 0, threading.Lock()

    def pass_one(self) -> None:
        with self._lock:
            if self._passed == self._deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            self._passed += 1

    def watch(self, station: Station) -> None:
        writing: set[int] = set()

        def statement(connection: Any, cursor: Any, text: str, *_: Any) -> None:
            if text.split(" ", 1)[0] in ("INSERT", "UPDATE", "DELETE"):
                writing.add(id(connection))
                self.pass_one()

        def commit(connection: Any) -> None:
            if id(connection) in writing:
                writing.discard(id(connection))
                self.pass_one()

        event.listen(station.store.engine, "before_cursor_execute", statement)
        event.listen(station.store.engine, "commit", commit)
        asked = Endpoint._request

        def request(endpoint: Endpoint, calls: list[Call]) -> list[Any]:
            is_sending = any(call.method == "eth_sendRawTransaction" for call in calls)
            if is_sending:
                self.pass_one()
            answers = asked(endpoint, calls)
            if is_sending:
                self.pass_one()
            return answers

        Endpoint._request = request  # type: ignore[method-assign, assignment]


def main(folder: str, url: str, count: str, deadly: str) -> int:
    trust = Trust.model_validate_json((Path(folder) / "trust.json").read_text())
    station = Station(Path(folder), url, trust)
    if not station.journal.depth():
        station.seal(int(count))
    Points(int(deadly)).watch(station)
    with station.running():
        wait_until(station.is_final)
    wait_for_workers()
    station.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
