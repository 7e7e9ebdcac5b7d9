"""Both ends of a site at a log node: a node that answers over HTTP, and lies where it is told to; a site that follows it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from ledger.core import contracts
from ledger.core.checkpoint import Checkpoint, sign
from ledger.core.contracts import Beacon
from ledger.core.records import AcquisitionRecord
from ledger.core.stateproof import Header
from ledger.core.trust import Contract
from ledger.core.typeddata import keccak256
from ledger.log import Log
from ledger.log.anchoring import AnchorRow
from ledger.log.following import Following, Ledger
from ledger.node.client import NodeClient
from ledger.register import Claim, Sealer
from ledger.store import LogStore, open_store
from ledger.store.anchors import AnchorStore
from ledger.store.journal import JournalStore
from ledger.web import Limits
from tests.simulators.ledger import ANCHOR_LOG, CODE, REGISTRY, World
from tests.web.nodes import LOG_KEY, ORIGIN, PUBLIC_KEY, Agent, Desk

Lie = Callable[[bytes], bytes | tuple[int, bytes]]
"""Of the body that an honest node answers with: what is answered instead, with its status where that is not 200."""


class Node:
    """A node on a port of its own, with a chain in memory. `lies`: beginning of a path -> what is said there instead; a lie for
    a path in `deaf` is said without hearing what was asked."""

    def __init__(self, desk: Desk, port: int) -> None:
        self.desk, self.url, self.chain = desk, f"http://127.0.0.1:{port}", World()
        self.lies: dict[str, Lie] = {}
        self.deaf: set[str] = set()
        self.asked: list[str] = []
        self._block = 100

    def checkpoint(self, size: int) -> str:
        return sign(Checkpoint(ORIGIN, size, self.desk.log.root(size)), PUBLIC_KEY, LOG_KEY.sign)

    def anchored(self, size: int, old_size: int = 0) -> AnchorRow:
        """An anchor as the chain has it, with its proof."""
        block, self._block = self._block, self._block + 2
        beacons = (Beacon(3, self.chain.hash_of(3)),)
        time = self.chain.time_of(block)
        commitment = contracts.anchor_commitment(self.desk.log.root(size), old_size, block, time, beacons)
        self.chain.storage[ANCHOR_LOG][contracts.anchor_slot(bytes(32), size)] = int.from_bytes(commitment, "big")
        proof = self.chain.state(block + 1)
        return AnchorRow(
            size, old_size, self.checkpoint(size), beacons, "final", block, b"\1" * 32, time, 50_000, proof, 5, time
        )

    def anchor(self, size: int, old_size: int = 0) -> None:
        self.desk.anchors.put(self.anchored(size, old_size))

    def ledger(self) -> Ledger:
        def is_on_chain(header: Header) -> bool:
            return header.number in self.chain.headers and self.chain.hash_of(header.number) == header.hash

        contract = Contract(address=ANCHOR_LOG, code_hash=CODE)
        return Ledger(contract, Contract(address=REGISTRY, code_hash=CODE), bytes(32), is_on_chain)


class Site:
    """A site that follows a node, with a journal, a copy of the log, and one key. `now` is its clock."""

    def __init__(self, folder: Path, node: Node, agent: Agent, name: str = "Site B") -> None:
        self.store = open_store(folder / "site.sqlite")
        self.journal, self.anchors = JournalStore(self.store), AnchorStore(self.store)
        self.log = Log(LogStore(self.store), ORIGIN, PUBLIC_KEY)
        self.node, self.agent = node, agent
        self.token = node.desk.site(name)["Authorization"].removeprefix("Bearer ")
        self.now = 0.0
        self.denounced: list[tuple[str, str]] = []
        self.certificates: dict[bytes, bytes] = {agent.signer.key: agent.certificate}
        self.following = self.started()

    def started(self) -> Following:
        """What a new process of the site has in hand."""
        client = NodeClient(self.node.url, self.token, certificates=self.certificates, sleep=lambda _: None)
        return Following(
            self.log,
            self.journal,
            self.journal,
            self.anchors,
            client,
            self.node.ledger(),
            lambda: self.now,
            lambda *notes: self.denounced.append(notes),
        )

    def seal(self, count: int, agent: Agent | None = None, of: str = "an image") -> None:
        one = agent or self.agent
        sealer = Sealer(self.journal, one.signer, one.domain, lambda: 1_800_000_000)
        for _ in range(count):
            number = self.journal.counts()[0]
            claim = Claim(keccak256(f"{of} {number}".encode()), "px1-sha256/attributes-1", {})
            sealer.state(AcquisitionRecord, [claim], Beacon(7, b"\7" * 32), 0)

    def turn(self) -> None:
        """Once everything that the site's loop does."""
        for step in (self.following.settle, self.following.follow, self.following.hand_in):
            step()

    def states(self) -> dict[str, int]:
        """How many records are queued, in the log, and final."""
        total, queued = self.journal.counts()
        final = self.anchors.final_size()
        places = range(self.journal.next_index())
        return {"queued": queued, "logged": total - queued, "final": sum(one < final for one in places)}


class _Lying:
    """Answers in the place of an app where it was told to."""

    def __init__(self, app: Any, node: Node) -> None:
        self._app, self._node = app, node

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"].removeprefix("/v1/")
        self._node.asked.append(f"{scope['method']} {path}")
        start = next((start for start in self._node.lies if path.startswith(start)), None)
        if start is None:
            await self._app(scope, receive, send)
            return
        parts: list[bytes] = []

        async def kept(message: Any) -> None:
            parts.append(message.get("body", b""))

        if start not in self._node.deaf:
            await self._app(scope, receive, kept)
        told = self._node.lies[start](b"".join(parts))
        status, body = told if isinstance(told, tuple) else (200, told)
        await send({"type": "http.response.start", "status": status, "headers": [(b"location", b"/elsewhere")]})
        await send({"type": "http.response.body", "body": body})


@contextmanager
def running(folder: Path, *, carries: bool = True, limits: Limits | None = None) -> Iterator[Node]:
    with Desk(folder, limits, carries=carries) as desk, socket.create_server(("127.0.0.1", 0)) as listener:
        node = Node(desk, listener.getsockname()[1])
        app = _Lying(desk.app, node)
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", http="h11")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield node
        server.should_exit = True
        thread.join(20)
