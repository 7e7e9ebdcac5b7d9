"""`/healthz`, `/status` and `/metrics`: how the agent is, for monitors. Counts, states, names of the settings; nothing of an
image. The metrics are named as Prometheus asks: base units, `_total` for what only grows, nothing counted in a label."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from ledger.core.errors import FixInput, ScanSealError
from ledger.store.spool import Counts

LOG = logging.getLogger(__name__)
PREFIX = "scanseal_agent_"
JSON = "application/json"
ANSWERS_WITHIN_S = 5.0
ANSWER_LIMIT = 1 << 20
STEPS = {"forward": ("none", "waiting", "sent", "unsendable"), "seal": ("waiting", "sealed", "received", "none", "refused")}
ALARMS = (
    "file lost",
    "key barred",
    "budget used up",
    "price over the ceiling",
    "balance low",
    "key revoked",
    "old copy restored",
    "chain out of reach",
    "not permitted",
    "key held",
    "log disagrees",
    "node out of reach",
    "records left out",
)
"""The kinds of alarms that there are: docs/agent.md and docs/anchoring.md say what to do. Each is a series from the start, so
that one which ends is seen to end."""


@dataclass(frozen=True)
class Health:
    """A moment of the agent. Times in seconds since 1970; `troubles` says what does not work now, by part; `alarms` need
    somebody, and begin with their kind and a colon."""

    at: float
    site: str
    pid: int
    version: str
    started: float | None
    """When all of it ran; None while it starts."""
    ports: Mapping[str, int]
    """Where the DICOM sources listen."""
    counts: Counts
    free_bytes: int
    lost: int
    refused: Mapping[tuple[str, str], int]
    workers: Mapping[str, tuple[int | None, int]]
    """name -> process id (None: it is not running), restarts."""
    troubles: Mapping[str, str]
    alarms: tuple[str, ...]
    anchoring: Mapping[str, Any] | None
    clock_behind_s: float | None
    """How far the chain's newest block is ahead of this machine's clock."""

    @property
    def is_well(self) -> bool:
        """Whether images are received and kept; what waits for a PACS or a chain is trouble, and no illness."""
        return self.started is not None and not self.alarms and all(pid is not None for pid, _ in self.workers.values())

    def as_json(self) -> dict[str, Any]:
        counts = self.counts
        steps: dict[str, dict[str, int]] = {"forward": {}, "seal": {}}
        for (_, step, state), count in counts.states.items():
            steps[step][state] = steps[step].get(state, 0) + count
        return {
            "well": self.is_well,
            "site": self.site,
            "pid": self.pid,
            "version": self.version,
            "started": self.started,
            "ports": dict(self.ports),
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
            "clock_behind_s": self.clock_behind_s,
        }

    def _age(self, since: int | None) -> float | None:
        return None if since is None else round(max(0.0, self.at - since / 1e6), 1)


class _Metrics(Collector):
    def __init__(self, look: Callable[[], Health]) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        health = self._look()
        yield InfoMetricFamily(PREFIX + "build", "The package that runs", {"version": health.version})
        yield from _files(health)
        for name, text, value in (
            ("well", "1 where images are received and kept and nobody is needed", float(health.is_well)),
            ("start_time_seconds", "When all of the agent ran, 0 while it starts", health.started or 0.0),
            ("spool_files", "Files in the spool", health.counts.files),
            ("spool_bytes", "Bytes of the files in the spool", health.counts.size),
            ("spool_free_bytes", "Bytes free on the spool's disk", health.free_bytes),
            ("lost_files", "Files that were noted and are gone", health.lost),
            ("troubles", "Parts that do not work now", len(health.troubles)),
        ):
            yield GaugeMetricFamily(PREFIX + name, text, value)
        if health.clock_behind_s is not None:
            text = "Seconds that the chain's newest block is ahead of this machine's clock"
            yield GaugeMetricFamily(PREFIX + "clock_behind_seconds", text, health.clock_behind_s)
        refused = CounterMetricFamily(PREFIX + "refused", "Refusals and troubles", labels=["source", "reason"])
        for (source, word), count in health.refused.items():
            refused.add_metric([source, word], count)
        yield refused
        up = GaugeMetricFamily(PREFIX + "worker_up", "1 where a worker process runs", labels=["worker"])
        restarts = CounterMetricFamily(PREFIX + "worker_restarts", "Restarts of worker processes", labels=["worker"])
        for name, (pid, count) in health.workers.items():
            up.add_metric([name], float(pid is not None))
            restarts.add_metric([name], count)
        yield from (up, restarts)
        alarms = GaugeMetricFamily(PREFIX + "alarms", "Alarms that need somebody, by kind", labels=["alarm"])
        kinds = Counter(alarm.partition(":")[0] for alarm in health.alarms)
        for kind in dict.fromkeys((*ALARMS, *kinds)):
            alarms.add_metric([kind], kinds[kind])
        yield alarms
        yield from _anchoring(health.anchoring or {})


def _files(health: Health) -> Iterator[Metric]:
    files = GaugeMetricFamily(
        PREFIX + "files", "Files that were received, by source, step and state", labels=["source", "step", "state"]
    )
    states = health.counts.states
    for source in dict.fromkeys(source for source, _, _ in states):
        for step, known in STEPS.items():
            for state in known:
                files.add_metric([source, step, state], states.get((source, step, state), 0))
    yield files
    oldest = GaugeMetricFamily(PREFIX + "oldest_waiting_seconds", "Age of the oldest file that waits", labels=["step"])
    for step, since in (("forward", health.counts.oldest_forward), ("seal", health.counts.oldest_seal)):
        oldest.add_metric([step], 0.0 if since is None else max(0.0, health.at - since / 1e6))
    yield oldest


def _anchoring(status: Mapping[str, Any]) -> Iterator[Metric]:
    days = (status.get("forecast") or {}).get("days_left")
    for name, text, value in (
        ("queued_records", "Records that are not in the log yet", status.get("queued")),
        ("records", "Records in the log", status.get("log_size")),
        ("anchored_records", "Records of the log that a block has", status.get("anchored_size")),
        ("final_records", "Records of the log that are final on chain", status.get("final_size")),
        ("last_anchor_timestamp_seconds", "When the newest anchor was sent", status.get("last_anchor_at")),
        ("spent_today_wei", "Wei spent on anchors today (UTC)", status.get("spent_today_wei")),
        ("account_left_seconds", "How long the account's balance lasts", None if days is None else days * 86_400),
    ):
        if isinstance(value, int | float):
            yield GaugeMetricFamily("scanseal_log_" + name, text, value)


class HealthServer:
    """Answers GET on a port of its own; a `Part`. `/healthz` answers 503 where somebody is needed, `/status` 200 whatever it
    says."""

    def __init__(self, host: str, port: int, look: Callable[[], Health]) -> None:
        self._address, self._look = (host, port), look
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Raises FixInput where the port cannot be had."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Metrics(self._look))
        look = self._look

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Whoever asked has gone, or asked nonsense: no traceback on standard error."""
                LOG.warning("an answer failed", exc_info=True)

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                try:
                    self._answer(*self._found())
                except ScanSealError as error:
                    self._answer(503, JSON, json.dumps({"well": False, "troubles": {"store": str(error)}}).encode())

            def _found(self) -> tuple[int, str, bytes]:
                if self.path == "/metrics":
                    return 200, CONTENT_TYPE_LATEST, generate_latest(registry)
                if self.path not in ("/healthz", "/status"):
                    return 404, "text/plain", b"/healthz, /status, /metrics\n"
                health = look()
                status = 200 if health.is_well or self.path == "/status" else 503
                return status, JSON, json.dumps(health.as_json(), indent=2).encode()

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing is logged of who asks."""

        try:
            self._server = Server(self._address, Handler)
        except OSError as error:
            raise FixInput(f"health: cannot listen on {self._address[0]}:{self._address[1]} ({error.strerror})") from error
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1]) if self._server is not None else 0

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def asked(host: str, port: int) -> dict[str, Any] | None:
    """What the agent at this port says of itself; None where nothing answers, or something else does."""
    connection = HTTPConnection({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port, timeout=ANSWERS_WITHIN_S)  # noqa: S104
    try:
        connection.request("GET", "/status")
        told = json.loads(connection.getresponse().read(ANSWER_LIMIT))
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return told if isinstance(told, dict) and "well" in told else None
