"""The agent's parts in one process, on a store and a spool of their own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.agent.association import Peer as Pacs
from ledger.agent.forwarding import Forwarder
from ledger.agent.receiver import Listener, Peer, Receiver
from ledger.agent.spool import Spool
from ledger.store import open_store
from ledger.store.spool import Spooled, SpoolStore
from tests.agent.modality import Modality
from tests.journeys.agents import until


class Desk:
    """A spool, a receiver on a port, and a forwarder once there is a PACS. `said` is what parts told of their trouble."""

    def __init__(self, folder: Path) -> None:
        self.store = open_store(folder / "store.sqlite")
        self.steps: list[str] = []
        self.min_free = 0
        self.spool = Spool(folder / "spool", SpoolStore(self.store), 0, 3600, self.steps.append)
        self.said: list[str] = []
        self.refused: list[str] = []
        self.parts: list[Receiver | Forwarder] = []

    def listen(self, **options: object) -> Modality:
        """A receiver; a modality that sends to it."""
        given: dict[str, object] = {"allow": (Peer("STORESCU", "127.0.0.1"),), "forward": True, "idle_s": 20.0} | options
        listener = Listener("ct", "127.0.0.1", 0, "SCANSEAL", **given)  # type: ignore[arg-type]
        self.receiver = Receiver(listener, self.spool, lambda source, word: self.refused.append(word))
        port = self.receiver.start()
        self.parts.append(self.receiver)
        return Modality(port)

    def forward(self, port: int, timeout_s: float = 2.0, share: tuple[int, int] = (0, 1), **options: object) -> Forwarder:
        peer = Pacs("pacs", "127.0.0.1", port, "ORTHANC", "SCANSEAL", timeout_s=timeout_s, **options)  # type: ignore[arg-type]
        forwarder = Forwarder(peer, ["ct"], self.spool, lambda part, word: self.said.append(word), share)
        self.spool.wakes.append(forwarder.wake.set)
        forwarder.start()
        self.parts.append(forwarder)
        return forwarder

    def rows(self) -> list[Spooled]:
        return list(self.spool.book.kept())

    def until_sent(self, count: int, *, hurry: bool = True, patience_s: float = 40.0) -> None:
        """`hurry`: nothing waits for its next turn."""

        def is_sent() -> bool:
            if hurry:
                self.spool.book.hurry()
                for wake in self.spool.wakes:
                    wake()
            return sum(row.forward == "sent" for row in self.rows()) == count

        until(is_sent, f"{count} were sent", patience_s)

    def until_released(self) -> None:
        """Until no association to a PACS is open: what it takes is asked anew with the next."""
        forwarders = [part for part in self.parts if isinstance(part, Forwarder)]
        until(lambda: all(part._association is None for part in forwarders), "the end of the association")

    def incoming(self) -> list[Path]:
        return list(self.spool.incoming.iterdir())

    def stop(self) -> None:
        for part in reversed(self.parts):
            part.stop()
        self.store.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    one = Desk(tmp_path)
    before = threading.active_count()
    yield one
    one.stop()
    until(lambda: threading.active_count() <= before + 2, "the end of the threads", 10)
