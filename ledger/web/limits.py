"""What one peer may ask of a node: so many requests and records a second, so many bytes, so much time for them."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fastapi import Request

from ledger.web.problems import Refusal

PEERS_KEPT: Final = 10_000
"""Peers whose use is remembered: of more, the one that was seen least lately starts afresh."""


@dataclass(frozen=True)
class Limits:
    """`requests_per_s` with bursts of `burst` for each peer; `records_per_s` with bursts of `record_burst` for each site that
    hands in. `queue`: records that may wait to be sequenced."""

    requests_per_s: float = 200.0
    burst: int = 1_000
    records_per_s: float = 10_000.0
    record_burst: int = 50_000
    records: int = 1_024
    body: int = 4 << 20
    deposit: int = 2 << 20
    body_s: float = 30.0
    queue: int = 100_000


class Buckets:
    """A token bucket for each peer. `clock` in seconds, monotonic."""

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, peer: str, amount: int = 1) -> None:
        """Raises Refusal (429) where the peer's bucket has not so much."""
        with self._lock:
            now = self._clock()
            level, at = self._levels.pop(peer, (float(self._burst), now))
            level = min(self._burst, level + (now - at) * self._per_s)
            enough = level >= amount
            self._levels[peer] = (level - amount if enough else level, now)
            if len(self._levels) > PEERS_KEPT:
                self._levels.popitem(last=False)
        if not enough:
            wait = max(1, round((min(amount, self._burst) - level) / self._per_s + 0.5))
            raise Refusal(429, "too-many", f"too much at once: ask again in {wait} s", {"Retry-After": str(wait)})


async def body_of(request: Request, limit: int, within_s: float) -> bytes:
    """The body, of at most `limit` bytes. Raises Refusal (413, 408)."""

    async def read() -> bytes:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            parts.append(part)
        return b"".join(parts)

    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    try:
        return await asyncio.wait_for(read(), within_s)
    except TimeoutError as error:
        raise Refusal(408, "too-slow", f"the body did not arrive within {within_s:.0f} s", {"Connection": "close"}) from error


def _too_large(limit: int) -> Refusal:
    return Refusal(413, "too-large", f"more than {limit} bytes: send it in parts", {"Connection": "close"})
