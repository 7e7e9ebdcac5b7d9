"""A log node on a real store without a chain, and sites that hand in to it with real keys and certificates."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI

from ledger.core.certificates import Device
from ledger.core.errors import LedgerUnavailable
from ledger.core.records import AcquisitionRecord, Record, SignedRecord
from ledger.core.trust import Authority as TrustedAuthority
from ledger.core.trust import Contract, Trust, TrustedLog
from ledger.keys import authority
from ledger.keys.signers import Curve, SoftwareSigner, new_key
from ledger.log import Log
from ledger.log.anchoring import Anchoring
from ledger.log.schedule import Policy
from ledger.log.submission import NO_RECORD
from ledger.store import LogStore, open_store
from ledger.store.anchors import AnchorStore
from ledger.store.payments import PaymentStore
from ledger.store.submitted import SiteQueue, SubmittedStore
from ledger.web import Limits, Meter, make_app
from ledger.wiring.carrying import Carrier
from ledger.wiring.serving import LogNode

ORIGIN = "example.org/node"
LOG_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = LOG_KEY.public_key().public_bytes_raw()
BEACON = b"\7" * 32
CA = authority.new_authority("Site B", datetime.now(UTC))


def trust(*accepted: authority.Authority) -> Trust:
    return Trust(
        format="scanseal-trust-1",
        chain_id=31337,
        genesis_hash=bytes(32),
        anchor_log=Contract(address=b"\1" * 20, code_hash=bytes(32)),
        device_registry=Contract(address=b"\2" * 20, code_hash=bytes(32)),
        logs=(TrustedLog(origin=ORIGIN, log_id=bytes(32), key=PUBLIC_KEY),),
        authorities=tuple(TrustedAuthority(name="a site", certificate=one.pem) for one in accepted or (CA,)),
    )


class Agent:
    """A key that signs a chain of records. With the `signer` of another one it is a second agent with the same key."""

    def __init__(
        self, curve: Curve = "secp256k1", issuer: authority.Authority = CA, signer: SoftwareSigner | None = None
    ) -> None:
        self.signer = signer or new_key(curve)
        request = authority.request(Device("Acme", "CT 3000", "42", "CT1", "Site B"), self.signer)
        self.certificate = issuer.issue(request, datetime.now(UTC)).der
        self.domain = trust().domain
        self.counter, self.previous = 0, NO_RECORD

    def record(self, content: bytes = b"\3" * 32) -> Record:
        head = (content, "px1-sha256/attributes-1", self.signer.key, self.counter, self.previous, 1_800_000_000, 7, BEACON)
        return AcquisitionRecord(*head)

    def sign(self, count: int = 1, content: bytes = b"\3" * 32) -> list[bytes]:
        """The log entries of so many new records."""
        entries = []
        for _ in range(count):
            record = self.record(content)
            self.counter, self.previous = self.counter + 1, record.id(self.domain)
            entries.append(SignedRecord(record, self.signer.sign(self.previous)).entry())
        return entries


class Desk:
    """A running node, and its app. `clock` in seconds since 1970."""

    def __init__(
        self, folder: Path, limits: Limits | None = None, believed: Trust | None = None, *, carries: bool = True
    ) -> None:
        self.store = open_store(folder / "store.sqlite")
        self.log = Log(LogStore(self.store), ORIGIN, PUBLIC_KEY, LOG_KEY.sign)
        self.submitted = SubmittedStore(self.store)
        self.queue = SiteQueue(self.store)
        self.anchors = AnchorStore(self.store)
        self.meter, self.limits = Meter(), limits or Limits()
        self.trust = believed or trust()
        self.now = time.time
        self.newest: bytes | None = None
        self.loop: Any = self._carrier(folder) if carries else Idle()
        self.node = LogNode(
            self.store,
            self.log,
            self.loop,
            lambda: self.trust,
            self._newest,
            self.meter,
            self.limits,
            lambda: self.now(),
            5.0 if carries else 0.0,
        )
        self.app: FastAPI = make_app(self.node, self.meter, self.limits)

    def _carrier(self, folder: Path) -> Carrier:
        def connect(stop: threading.Event) -> Anchoring:
            raise LedgerUnavailable("there is no chain in this test")

        return Carrier(
            self.log,
            SiteQueue(self.store, time.time, self.meter.latency.observe),
            self.anchors,
            PaymentStore(self.store, time.time),
            connect,
            Policy(),
            folder / "anchor.lock",
            believe=lambda rows: None,
        )

    def _newest(self) -> bytes:
        if self.newest is None:
            raise LedgerUnavailable("there is no chain in this test")
        return self.newest

    def site(self, name: str = "Site B") -> dict[str, str]:
        """The headers of a site that may hand in."""
        token = f"token-of-{name.replace(' ', '-')}-".ljust(43, "x")
        self.submitted.add_client(name, token, 0)
        return {"Authorization": f"Bearer {token}"}

    def __enter__(self) -> Desk:
        self.node.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.node.stop()
        self.store.close()

    def entries(self) -> list[bytes]:
        """The whole log."""
        return list(self.log.entries(0, self.log.head().size))


@contextmanager
def serving(app: FastAPI) -> Iterator[httpx.Client]:
    """The app on a port of its own, and somebody who asks it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", http="h11")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        limits = httpx.Limits(max_connections=20)
        with httpx.Client(base_url=url, timeout=30, trust_env=False, limits=limits) as client:
            yield client
        server.should_exit = True
        thread.join(20)


class Idle:
    """A loop that sequences nothing: what is handed in stays queued."""

    def run(self, stop: threading.Event) -> None:
        stop.wait()

    def wake(self) -> None:
        """Does nothing."""

    def status(self) -> Any:
        raise LedgerUnavailable("this loop tells nothing")


def body(entries: Sequence[bytes], *certificates: bytes) -> dict[str, list[str]]:
    return {
        "records": [base64.b64encode(one).decode() for one in entries],
        "certificates": [base64.b64encode(one).decode() for one in certificates],
    }


def wait_until(holds: Any, patience_s: float = 20.0) -> Any:
    deadline = time.monotonic() + patience_s
    while not (found := holds()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return found
