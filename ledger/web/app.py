"""The app of a node: its routes, their limits, and a line in the log for each request, without bodies and query values."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ledger.web import evidence, health, problems, reading, records
from ledger.web.asking import State
from ledger.web.limits import Buckets, Limits
from ledger.web.meter import Meter
from ledger.web.node import Node

LOG = logging.getLogger("ledger.web.access")
SECURITY_HEADERS: Final = ((b"x-content-type-options", b"nosniff"), (b"x-robots-tag", b"noindex"))


def make_app(
    node: Node, meter: Meter | None = None, limits: Limits | None = None, clock: Callable[[], float] = time.monotonic
) -> FastAPI:
    """The app of a node. `clock` in seconds, monotonic: for the limits and for how long a request took."""
    meter, limits = meter or Meter(), limits or Limits()
    app = FastAPI(
        title="ScanSeal log node",
        version=version("scanseal"),
        description="Signed records of medical images in; a transparency log with its proofs out.",
        # The pages that show these documents load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        redirect_slashes=False,
    )
    app.state.of_node = State(
        node,
        limits,
        meter,
        Buckets(limits.requests_per_s, limits.burst, clock),
        Buckets(limits.records_per_s, limits.record_burst, clock),
    )
    problems.install(app)
    for routes in (records, reading, evidence, health):
        app.include_router(routes.router)
    meter.watch(node.health)
    app.add_middleware(Access, meter=meter, clock=clock)
    return app


class Access:
    """Counts refusals, adds headers that every answer has, and writes one line a request: the route, never the path that was
    asked (it may hold a token), no query, no body, no address."""

    def __init__(self, app: ASGIApp, meter: Meter, clock: Callable[[], float]) -> None:
        self._app, self._meter, self._clock = app, meter, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = self._clock(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *SECURITY_HEADERS]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            self._note(scope, status, self._clock() - started)

    def _note(self, scope: Scope, status: int, took_s: float) -> None:
        state: dict[str, Any] = scope.get("state", {})
        word = state.get("refused")
        if word is not None:
            self._meter.refused.labels(word).inc()
        route = getattr(scope.get("route"), "path", "none")
        shown = {"method": scope["method"], "route": route, "status": status, "ms": round(took_s * 1000, 1)}
        if client := state.get("client_name"):
            shown["site"] = client
        if word is not None:
            shown["refused"] = word
        LOG.info("request", extra=shown)
