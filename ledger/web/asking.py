"""Who asks, and what of the app a route needs: the dependencies of the routes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from ledger.web.limits import Buckets, Limits
from ledger.web.meter import Meter
from ledger.web.node import Node
from ledger.web.problems import Refusal

_BEARER: Final = re.compile(r"[Bb]earer +([A-Za-z0-9_-]{20,200})")
_NO_TOKEN: Final = "a site hands in with `Authorization: Bearer <its token>`: the node's operator makes one"  # noqa: S105


@dataclass(frozen=True)
class State:
    """What an app has beside its routes."""

    node: Node
    limits: Limits
    meter: Meter
    requests: Buckets
    records: Buckets


def _state(request: Request) -> State:
    state: State = request.app.state.of_node
    return state


def _node(request: Request) -> Node:
    return _state(request).node


def _meter(request: Request) -> Meter:
    return _state(request).meter


async def _anybody(request: Request) -> str:
    """The peer's address, within its limits."""
    peer = request.client.host if request.client is not None else "?"
    _state(request).requests.take(f"address {peer}")
    return peer


async def _site(request: Request, _: Annotated[object, Depends(HTTPBearer(auto_error=False))]) -> str:
    """The site whose token was given, within its limits; the body is not read before."""
    state = _state(request)
    given = _BEARER.fullmatch(request.headers.get("authorization", ""))
    name = await run_in_threadpool(state.node.client, given[1]) if given else None
    if name is None:
        # Guessing tokens is limited as asking is.
        await _anybody(request)
        raise Refusal(401, "token", _NO_TOKEN, {"WWW-Authenticate": "Bearer"})
    state.requests.take(f"site {name}")
    request.state.client_name = name
    return name


Stated = Annotated[State, Depends(_state)]
Served = Annotated[Node, Depends(_node)]
Metered = Annotated[Meter, Depends(_meter)]
Site = Annotated[str, Depends(_site)]
within_limits = [Depends(_anybody)]
"""For routes that anybody may ask."""
