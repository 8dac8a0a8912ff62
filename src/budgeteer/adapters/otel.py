"""Record every settlement as OpenTelemetry metrics and a span: ``wrap(client, allowance, on_settle=recorder())``.

Failed attempts are recorded, too: what they were charged is spent. Tokens are those that were charged, estimated ones
included (``budgeteer.estimated``). Other GenAI instrumentations of the same client also make a span for each call;
beside one of them use ``spans=False``, or tokens are counted twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from budgeteer.adapters import semconv
from budgeteer.core.errors import MissingExtra
from budgeteer.metering.outcome import Outcome
from budgeteer.metering.settlement import Settlement

try:
    from opentelemetry import context, metrics, propagate, trace
    from opentelemetry.trace import SpanKind, Status, StatusCode
except ImportError as error:
    raise MissingExtra("opentelemetry", "otel") from error

NAME = "budgeteer"


def recorder(
    *,
    spans: bool = True,
    meter_provider: metrics.MeterProvider | None = None,
    tracer_provider: trace.TracerProvider | None = None,
) -> Callable[[Settlement], None]:
    """A function to pass as ``on_settle``, which records each settlement.

    Args:
        spans: whether to make a span for each settlement, beside the metrics.
        meter_provider, tracer_provider: None: the global ones.
    """
    meter = metrics.get_meter(NAME, meter_provider=meter_provider)
    tracer = trace.get_tracer(NAME, tracer_provider=tracer_provider) if spans else None
    tokens = meter.create_histogram(
        semconv.TOKEN_USAGE,
        "{token}",
        "Tokens of a call",
        explicit_bucket_boundaries_advisory=semconv.TOKEN_BUCKETS,
    )
    duration = meter.create_histogram(
        semconv.DURATION, "s", "Time of a call", explicit_bucket_boundaries_advisory=semconv.DURATION_BUCKETS
    )
    billed = {part: meter.create_counter(name, "{token}") for part, name in semconv.COUNTERS.items()}
    reserved = meter.create_counter(semconv.RESERVED, "{unit}", "Units reserved before calls")
    settled = meter.create_counter(semconv.SETTLED, "{unit}", "Units charged")
    overshoot = meter.create_counter(semconv.OVERSHOOT, "{unit}", "Units charged beyond their reservation")

    def record(settlement: Settlement) -> None:
        about = _about(settlement)
        for part, counter in billed.items():
            value = getattr(settlement.usage, part)
            if value is not None:
                counter.add(value, about)
        for part in ("input", "output"):
            value = getattr(settlement.usage, part)
            if value is not None:
                tokens.record(value, {**about, semconv.TOKEN_TYPE: part})
        duration.record(max(0, settlement.ended - settlement.started) / 1e9, about)
        for kind, units in settlement.amounts.items():
            own: dict[str, Any] = {
                semconv.KIND: kind,
                semconv.OUTCOME: settlement.outcome,
                semconv.ESTIMATED: settlement.estimated,
                semconv.REQUEST_MODEL: settlement.model,
            }
            reserved.add(settlement.reserved[kind], own)
            settled.add(units, own)
            overshoot.add(max(0, units - settlement.reserved[kind]), own)
        if tracer is not None:
            _span(tracer, settlement)

    return record


class Incoming:
    """Connect the spans made for incoming requests to the spans of their senders.

    Args:
        tracer_provider: None: the global one.
    """

    def __init__(self, tracer_provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer(NAME, tracer_provider=tracer_provider)

    @contextmanager
    def within(self, headers: Mapping[bytes, bytes]) -> Iterator[None]:
        """A context in which new spans are children of the span that the request's header ``traceparent`` names.

        If an instrumentation of this process has begun a span for the request, they are children of that one.
        """
        if trace.get_current_span().get_span_context().is_valid:
            yield
            return
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
        token = context.attach(propagate.extract(carrier))
        try:
            yield
        finally:
            context.detach(token)

    def refused(self, operation: str, model: str, status: int, code: str, started: int) -> None:
        """Record the span of a request that was refused.

        Args:
            operation: such as chat.
            model: as requested, or "".
            status: of the HTTP response.
            code: of the error, such as budget_exceeded.
            started: nanoseconds since 1970 (UTC).
        """
        name = semconv.OPERATIONS.get(operation, "chat")
        values: dict[str, Any] = {
            semconv.OPERATION: name,
            **({semconv.REQUEST_MODEL: model} if model else {}),
            semconv.OUTCOME: "refused",
            semconv.ERROR_TYPE: code,
            semconv.STATUS: status,
        }
        span = self._tracer.start_span(
            f"{name} {model}".strip(), kind=SpanKind.SERVER, attributes=values, start_time=started
        )
        span.set_status(Status(StatusCode.ERROR, f"refused: {code}"))
        span.end(max(started, time.time_ns()))


def attributes(settlement: Settlement) -> dict[str, Any]:
    """All attributes of a settlement's span: name -> value."""
    values = _about(settlement)
    for part, names in semconv.USAGE.items():
        value = getattr(settlement.usage, part)
        if value is not None:
            values.update(dict.fromkeys(names, value))
    if settlement.cap is not None:
        values[semconv.REQUEST_MAX_TOKENS] = settlement.cap
    if settlement.choices != 1:
        values[semconv.REQUEST_CHOICES] = settlement.choices
    values[semconv.OUTCOME] = settlement.outcome
    values[semconv.ESTIMATED] = settlement.estimated
    values[semconv.ATTEMPT] = settlement.attempt
    for kind, units in settlement.amounts.items():
        held = settlement.reserved[kind]
        values[f"{semconv.RESERVED}.{kind}"] = held
        values[f"{semconv.SETTLED}.{kind}"] = units
        values[f"{semconv.OVERSHOOT}.{kind}"] = max(0, units - held)
    return values


def _about(settlement: Settlement) -> dict[str, Any]:
    """Attributes of spans and metrics, each of which has few distinct values."""
    values = {
        semconv.OPERATION: semconv.OPERATIONS.get(settlement.operation, "chat"),
        semconv.REQUEST_MODEL: settlement.model,
        **dict.fromkeys(semconv.PROVIDER, settlement.provider),
    }
    if settlement.response_model:
        values[semconv.RESPONSE_MODEL] = settlement.response_model
    if settlement.outcome != Outcome.OK:
        values[semconv.ERROR_TYPE] = settlement.outcome
    return values


def _span(tracer: trace.Tracer, settlement: Settlement) -> None:
    values = attributes(settlement)
    span = tracer.start_span(
        f"{values[semconv.OPERATION]} {settlement.model}",
        kind=SpanKind.CLIENT,
        attributes=values,
        start_time=settlement.started,
    )
    if settlement.outcome != Outcome.OK:
        charged = "not run, nothing charged" if settlement.outcome == Outcome.REJECTED else "charged as estimated"
        span.set_status(Status(StatusCode.ERROR, f"{settlement.outcome}: {charged}"))
    span.end(settlement.ended)
