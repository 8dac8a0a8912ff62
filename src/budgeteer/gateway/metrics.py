"""Prometheus metrics by model and upstream, never by key, since names of keys are private.

Tokens and calls are counted for the upstream of their attempt, requests and their time for that of the last attempt.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable
from typing import Any

from budgeteer.core.errors import MissingExtra
from budgeteer.gateway.record import Record
from budgeteer.metering.outcome import Outcome

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
    from prometheus_client.exposition import CONTENT_TYPE_LATEST
except ImportError as error:
    raise MissingExtra("prometheus_client", "gateway") from error

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.02, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The metrics of one gateway, in a registry of their own.

    Args:
        live: returns how many requests are running.
        known: whether a name is that of a model; other names become the label "".

    Attributes:
        away: reason -> how many requests and connections without a valid key were turned away; they have no records.
    """

    def __init__(self, live: Callable[[], int], known: Callable[[str], bool]) -> None:
        self._registry = CollectorRegistry()
        self._known = known
        self.away: Tally[str] = Tally()
        self._children: dict[tuple[Any, ...], Any] = {}
        about = ("model", "upstream", "operation")

        def counter(name: str, text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(f"budgeteer_{name}", text, labels, registry=self._registry)

        self._requests = counter("requests", "Requests", (*about, "outcome", "status"))
        self._refused = counter("refused", "Requests that were not let through", ("reason",))
        self._tokens = counter("tokens", "Tokens charged", (*about, "bucket"))
        self._units = counter("units", "Units charged", ("kind",))
        self._overshoot = counter("overshoot_units", "Units charged beyond their reservation", ("kind",))
        self._saved = counter("saved_units", "Units that answers of the cache did not cost", ("kind",))
        self._wasted = counter("wasted_tokens", "Tokens charged that no client got whole", about)
        self._estimated = counter("estimated", "Calls whose usage is estimated", about)
        self._attempts = counter("attempts", "Calls to upstreams", ("upstream",))
        self._alerts = counter("alerts", "Attempts to deliver alerts", ("alert", "channel", "result"))
        self._reloads = counter("config_reloads", "Times that the configuration was read again", ("result",))
        self._version = Gauge(
            "budgeteer_config_info", "Version of the configuration in use", ("version",), registry=self._registry
        )
        self._loaded = Gauge(
            "budgeteer_config_loaded_seconds", "When it was read, since 1970 (UTC)", registry=self._registry
        )
        self._seconds = Histogram(
            "budgeteer_request_seconds", "Time of a request", about, buckets=_SECONDS, registry=self._registry
        )
        Gauge("budgeteer_live_requests", "Requests under way", registry=self._registry).set_function(live)

    def _of(self, metric: Any, *labels: str) -> Any:
        """The child of a metric for some labels, remembered, since looking it up costs more than counting."""
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def count(self, record: Record) -> None:
        """Count one record."""
        of, model = self._of, record.model if self._known(record.model) else ""
        about = (model, record.upstream, record.operation)
        of(self._requests, *about, record.outcome, str(record.status)).inc()
        if record.outcome == Outcome.REFUSED:
            of(self._refused, record.reason).inc()
        for call in record.calls or (record,):  # what a killed replica had open is charged without its calls
            place = (model, call.upstream, record.operation)
            for bucket in ("input", "output", "cached", "reasoning"):
                if tokens := getattr(call, bucket):
                    of(self._tokens, *place, bucket).inc(tokens)
            if call.wasted:
                of(self._wasted, *place).inc(call.wasted)
            if call.estimated:
                of(self._estimated, *place).inc()
        for call in record.calls:
            of(self._attempts, call.upstream).inc()
        for kind, units in record.units.items():
            of(self._units, kind).inc(units)
        for kind, units in record.overshoot.items():
            of(self._overshoot, kind).inc(units)
        for kind, units in record.saved.items():
            of(self._saved, kind).inc(units)
        of(self._seconds, *about).observe(record.ms / 1000)

    def turned_away(self, reason: str) -> None:
        """Count a request or a connection that was turned away without a valid key."""
        self.away[reason] += 1
        self._of(self._refused, reason).inc()

    def alert(self, rule: str, channel: str, result: str) -> None:
        """Count what came of an attempt to deliver an alert."""
        self._of(self._alerts, rule, channel, result).inc()

    def configured(self, version: str) -> None:
        """Say which version of the configuration is in use from now on."""
        self._version.clear()
        self._version.labels(version).set(1)
        self._loaded.set_to_current_time()

    def reloads(self, result: str) -> None:
        """Count an attempt to reload the configuration: "loaded" or "refused"."""
        self._of(self._reloads, result).inc()

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
