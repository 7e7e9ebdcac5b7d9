"""`/healthz` and `/metrics`: how the agent is, for monitors. Counts, states, names of the settings; nothing of an image."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ledger.core.errors import FixInput
from ledger.store.spool import Counts

PREFIX = "scanseal_agent_"


@dataclass(frozen=True)
class Health:
    """A moment of the agent. Times in seconds since 1970; `troubles` says what does not work now, by part; `alarms` need
    somebody."""

    at: float
    counts: Counts
    free_bytes: int
    lost: int
    refused: Mapping[tuple[str, str], int]
    workers: Mapping[str, tuple[int | None, int]]
    """name -> process id, restarts."""
    troubles: Mapping[str, str]
    alarms: tuple[str, ...]
    anchoring: Mapping[str, Any] | None

    @property
    def is_well(self) -> bool:
        """Whether images are received and kept; what waits for a PACS or a chain is trouble, and no illness."""
        return not self.alarms and all(pid is not None for pid, _ in self.workers.values())

    def as_json(self) -> dict[str, Any]:
        counts = self.counts
        steps: dict[str, dict[str, int]] = {"forward": {}, "seal": {}}
        for (_, step, state), count in counts.states.items():
            steps[step][state] = steps[step].get(state, 0) + count
        return {
            "well": self.is_well,
            "forward": steps["forward"],
            "seal": steps["seal"],
            "oldest_waiting_s": {
                "forward": self._age(counts.oldest_forward),
                "seal": self._age(counts.oldest_seal),
            },
            "spool": {"files": counts.files, "bytes": counts.size, "free_bytes": self.free_bytes, "lost": self.lost},
            "refused": {f"{source}: {word}": count for (source, word), count in sorted(self.refused.items())},
            "workers": {name: {"pid": pid, "restarts": restarts} for name, (pid, restarts) in self.workers.items()},
            "troubles": dict(self.troubles),
            "alarms": list(self.alarms),
            "anchoring": dict(self.anchoring) if self.anchoring is not None else None,
        }

    def _age(self, since: int | None) -> float | None:
        return None if since is None else round(max(0.0, self.at - since / 1e6), 1)


class _Metrics(Collector):
    def __init__(self, look: Callable[[], Health]) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        health = self._look()
        files = GaugeMetricFamily(PREFIX + "files", "Files by source, step and state", labels=["source", "step", "state"])
        for (source, step, state), count in health.counts.states.items():
            files.add_metric([source, step, state], count)
        yield files
        oldest = GaugeMetricFamily(PREFIX + "oldest_waiting_seconds", "Age of the oldest file that waits", labels=["step"])
        for step, since in (("forward", health.counts.oldest_forward), ("seal", health.counts.oldest_seal)):
            oldest.add_metric([step], 0.0 if since is None else max(0.0, health.at - since / 1e6))
        yield oldest
        for name, text, value in (
            ("spool_bytes", "Bytes in the spool", health.counts.size),
            ("spool_free_bytes", "Bytes free on the spool's disk", health.free_bytes),
            ("lost_files", "Files that were noted and are gone", health.lost),
            ("well", "1 where images are received and kept", int(health.is_well)),
        ):
            yield GaugeMetricFamily(PREFIX + name, text, value)
        refused = CounterMetricFamily(PREFIX + "refused", "Refusals and troubles", labels=["source", "reason"])
        for (source, word), count in health.refused.items():
            refused.add_metric([source, word], count)
        yield refused
        restarts = CounterMetricFamily(PREFIX + "worker_restarts", "Restarts of worker processes", labels=["worker"])
        for name, (_, count) in health.workers.items():
            restarts.add_metric([name], count)
        yield restarts
        alarms = GaugeMetricFamily(PREFIX + "alarms", "Alarms that need somebody", labels=["alarm"])
        for alarm in health.alarms:
            alarms.add_metric([alarm.partition(":")[0]], 1)
        yield alarms
        yield from _anchoring(health.anchoring or {})


def _anchoring(status: Mapping[str, Any]) -> Iterator[Metric]:
    for name, text in (
        ("queued", "Records that are not in the log yet"),
        ("log_size", "Records in the log"),
        ("anchored_size", "Records in an anchored block"),
        ("final_size", "Records that are final on chain"),
        ("last_anchor_at", "Time of the last anchor"),
        ("spent_today_wei", "Wei spent on anchors today (UTC)"),
    ):
        if isinstance(status.get(name), int | float):
            yield GaugeMetricFamily("scanseal_log_" + name, text, status[name])


class HealthServer:
    """Answers GET on a port of its own; a `Part`."""

    def __init__(self, host: str, port: int, look: Callable[[], Health]) -> None:
        self._address, self._look = (host, port), look
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Raises FixInput where the port cannot be had."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Metrics(self._look))
        look = self._look

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                elif self.path in ("/healthz", "/status"):
                    health = look()
                    body = json.dumps(health.as_json(), indent=2).encode()
                    self._answer(200 if health.is_well or self.path == "/status" else 503, "application/json", body)
                else:
                    self._answer(404, "text/plain", b"/healthz, /metrics\n")

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing is logged of who asks."""

        try:
            self._server = ThreadingHTTPServer(self._address, Handler)
        except OSError as error:
            raise FixInput(f"health: cannot listen on {self._address[0]}:{self._address[1]} ({error.strerror})") from error
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1]) if self._server is not None else 0

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
