"""What a log node's commands need, built. As `assembly`: imports what it uses when it uses it."""

from __future__ import annotations

import ipaddress
import logging
import re
import secrets
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ledger.core.errors import EvidenceInvalid, FixInput, NeedPermission
from ledger.wiring import site as sites
from ledger.wiring.assembly import Opened, opened
from ledger.wiring.site import Site

if TYPE_CHECKING:
    import threading

    from ledger.store.submitted import SubmittedStore
    from ledger.web import Limits, Meter
    from ledger.wiring.serving import LogNode

LOG = logging.getLogger(__name__)
LOCK: Final = "serve.lock"
DRAIN_S: Final = 20
"""How long requests that are under way may take when the node is told to end."""
HEADERS: Final = 32_768
"""Bytes of a request's head."""
CONNECTIONS: Final = 1_000
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]{0,63}")


@dataclass(frozen=True)
class Tls:
    """Files in PEM; with `client_ca` peers must show a certificate that it issued."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


# ---- serving --------------------------------------------------------------------------------------------------------


def serve(site: Path | None, listen: str, tls: Tls | None, *, insecure_http: bool) -> None:
    """Runs the node until SIGTERM or SIGINT. Raises FixInput (an address, a file), NeedPermission, TryLater (one runs)."""
    import uvicorn

    from ledger.wiring import logs
    from ledger.wiring.anchors import only_one

    host, port = address(listen)
    if tls is None and not insecure_http and not _is_loopback(host):
        raise NeedPermission(
            f"{host} can be reached by others: give --tls-cert and --tls-key, or --insecure-http where something before this "
            "node does the TLS"
        )
    _try(tls)
    here = sites.open_site(site)
    logs.configure("serve")
    with only_one(here.folder / LOCK, "`scanseal serve`"), node(here) as (running, app), _listening(host, port) as listener:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            # The one of the two that bounds a request's head.
            http="h11",
            h11_max_incomplete_event_size=HEADERS,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=DRAIN_S,
            **_of(tls),
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _ended)  # uvicorn's own end it; what it raises again afterwards must not
        running.start()
        try:
            LOG.info("serving", extra={"listen": f"{host}:{listener.getsockname()[1]}", "tls": tls is not None})
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            running.stop()
            LOG.info("ended")


@contextmanager
def node(site: Site) -> Iterator[tuple[LogNode, Any]]:
    """A node, not yet running, with its app."""
    if site.node is not None:
        raise FixInput(f"this site hands its records in to {site.node.url}: it has no log of its own to serve")
    from ledger.web import Meter, make_app
    from ledger.wiring.serving import LogNode, TrustFile

    with opened(site) as store:
        meter, limits = Meter(), _limits(site)
        running = LogNode(
            store.store,
            store.log(to_write=True),
            _Carrying(store, meter),
            TrustFile(site.trust_path),
            lambda: _newest(site),
            meter,
            limits,
        )
        yield running, make_app(running, meter, limits)


class _Carrying:
    """`ledger.wiring.serving.Loop`: the site's loop, with what was handed in."""

    def __init__(self, store: Opened, meter: Meter) -> None:
        from ledger.store.submitted import SiteQueue
        from ledger.wiring.assembly_anchoring import carrier

        self._carrier = carrier(store, SiteQueue(store.store, time.time, meter.latency.observe))

    def run(self, stop: threading.Event) -> None:
        self._carrier.run(stop)

    def wake(self) -> None:
        self._carrier.wake()

    def status(self) -> Any:
        return self._carrier.status()


def _newest(site: Site) -> bytes:
    from ledger.wiring import chain

    return chain.connect(site.rpc, site.trust()).beacon().rlp


def _limits(site: Site) -> Limits:
    """The `[serve]` table of site.toml over the defaults. Raises FixInput."""
    from ledger.web import Limits

    known = {one.name: one for one in fields(Limits)}
    for name, value in site.serve.items():
        if name not in known:
            raise FixInput(f"site.toml: [serve] has no {name}; it has {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise FixInput(f"site.toml: [serve] {name} must be a whole number above 0")
    return Limits(**site.serve)


def address(listen: str) -> tuple[str, int]:
    """`HOST:PORT`, an IPv6 address in brackets. Raises FixInput."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:]+)\]|([^:\[\]]+)):([0-9]{1,5})", listen)
    if match is None or int(match[3]) > 65_535:
        raise FixInput(f"--listen {listen}: HOST:PORT belongs here, such as 127.0.0.1:8443")
    return match[1] or match[2], int(match[3])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise FixInput(f"cannot listen on {host}:{port} ({error.strerror})") from error
    with listener:
        yield listener


def _of(tls: Tls | None) -> dict[str, Any]:
    if tls is None:
        return {}
    given: dict[str, Any] = {"ssl_certfile": str(tls.certificate), "ssl_keyfile": str(tls.key)}
    if tls.client_ca is not None:
        given |= {"ssl_ca_certs": str(tls.client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return given


def _try(tls: Tls | None) -> None:
    """Raises FixInput where the files do not fit together."""
    if tls is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
    except (OSError, ValueError) as error:
        raise FixInput(f"the TLS files cannot be used: {error}; they are PEM, and the key is not encrypted") from error


def _ended(*_: Any) -> None:
    """A signal that was obeyed already."""


# ---- who may hand in, and with which keys ------------------------------------------------------------------------------


@contextmanager
def _submitted(site: Path | None, *, read_only: bool) -> Iterator[SubmittedStore]:
    from ledger.store.submitted import SubmittedStore

    with opened(sites.open_site(site), read_only=read_only) as store:
        yield SubmittedStore(store.store)


def add_client(site: Path | None, name: str) -> str:
    """A new site's token, which is shown this once. Raises FixInput."""
    if not _NAME.fullmatch(name):
        raise FixInput(f"{name!r} cannot name a site here: use letters, digits, spaces, '-', '_' and '.'")
    token = secrets.token_urlsafe(32)
    with _submitted(site, read_only=False) as store:
        store.add_client(name, token, int(time.time()))
    return token


def remove_client(site: Path | None, name: str) -> None:
    with _submitted(site, read_only=False) as store:
        store.remove_client(name)


def list_clients(site: Path | None) -> list[dict[str, Any]]:
    with _submitted(site, read_only=True) as store:
        return [{"name": client.name, "added": client.added} for client in store.clients()]


def list_keys(site: Path | None) -> list[dict[str, Any]]:
    """The keys whose records were handed in. `held`: two agents used it; `proof`: the log entry that contradicts the log."""
    from ledger.core import certificates

    rows = []
    with _submitted(site, read_only=True) as store:
        for key in store.every_key():
            try:
                holder = certificates.parse(key.certificate).holder().name
            except EvidenceInvalid:
                holder = "nobody that is known"
            proof = None if key.forked is None else key.forked.hex()
            counter = None if key.forked is None else int.from_bytes(key.forked[128:160], "big")
            rows.append(
                {
                    "key": "0x" + key.signer.hex(),
                    "device": holder,
                    "records": key.records,
                    "held": key.forked is not None,
                    "counter": counter,
                    "proof": proof,
                }
            )
    return rows


def release(site: Path | None, key: str) -> None:
    """Takes records of a key again. Raises FixInput."""
    digits = key.removeprefix("0x")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise FixInput("a key is 0x and 64 hex digits, as `scanseal node keys` shows it")
    with _submitted(site, read_only=False) as store:
        store.release(bytes.fromhex(digits))
