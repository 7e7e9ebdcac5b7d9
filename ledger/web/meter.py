"""What a node counts and measures, for Prometheus: base units, `_total` for what only grows. No record and no site in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ledger.web.node import Health

PREFIX: Final = "scanseal_node_"
LATENCIES_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


class Meter:
    """What the node counts. `refused` has every reason that a request can be refused for as a label."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.accepted = Counter(PREFIX + "accepted", "Records taken that were new", registry=self.registry)
        self.refused = Counter(PREFIX + "refused", "Requests refused, by reason", ["reason"], registry=self.registry)
        self.latency = Histogram(
            PREFIX + "sequence_latency_seconds",
            "From a record's acceptance until it is in the log",
            buckets=LATENCIES_S,
            registry=self.registry,
        )

    def watch(self, look: Callable[[], Health]) -> None:
        """Adds what is looked up whenever somebody asks."""
        self.registry.register(_Gauges(look))


class _Gauges(Collector):
    def __init__(self, look: Callable[[], Health]) -> None:
        self._look = look

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        health = self._look()
        for name, text, value in (
            ("well", "1 where records are taken and put into the log, and nobody is needed", float(health.is_well)),
            ("queued_records", "Records that are not in the log yet", health.queued),
            ("oldest_queued_seconds", "Age of the oldest of them that was handed in", health.oldest_queued_s or 0.0),
            ("records", "Records in the log", health.log_size),
            ("anchored_records", "Records of the log that a block has", health.anchored_size),
            ("last_anchor_age_seconds", "Age of the newest anchor", health.last_anchor_age_s),
            ("held_keys", "Keys that are refused since two agents used them", health.held_keys),
            ("troubles", "Parts that do not work now", len(health.troubles)),
        ):
            if value is not None:
                yield GaugeMetricFamily(PREFIX + name, text, value)
