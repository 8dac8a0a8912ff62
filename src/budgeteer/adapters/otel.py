"""Every settlement as OpenTelemetry metrics and a span: ``wrap(client, allowance, on_settle=recorder())``.

Failed attempts are recorded, too: what they were charged is spent. Tokens are those that were charged, estimated ones
included (``budgeteer.estimated``). A span a call is what other GenAI instrumentations of the same client make as well;
beside one of them use ``spans=False``, or its readers count tokens twice.
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
    """What to give as ``on_settle``.

    Args:
        spans: whether to make a span a settlement, beside the metrics.
        meter_provider, tracer_provider: the global ones when None.
    """
    meter = metrics.get_meter(NAME, meter_provider=meter_provider)
    tracer = trace.get_tracer(NAME, tracer_provider=tracer_provider) if spans else None
    tokens = meter.create_histogram(
        semconv.TOKEN_USAGE, "{token}", "Tokens of a call",
        explicit_bucket_boundaries_advisory=semconv.TOKEN_BUCKETS,
    )  # fmt: skip
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
                semconv.KIND: kind, semconv.OUTCOME: settlement.outcome, semconv.ESTIMATED: settlement.estimated,
                semconv.REQUEST_MODEL: settlement.model,
            }  # fmt: skip
            reserved.add(settlement.reserved[kind], own)
            settled.add(units, own)
            overshoot.add(max(0, units - settlement.reserved[kind]), own)
        if tracer is not None:
            _span(tracer, settlement)

    return record


class Incoming:
    """Requests that somebody else's spans made: theirs are the parents of the spans made here.

    Args:
        tracer_provider: the global one when None.
    """

    def __init__(self, tracer_provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer(NAME, tracer_provider=tracer_provider)

    @contextmanager
    def within(self, headers: Mapping[bytes, bytes]) -> Iterator[None]:
        """Spans made inside are children of the one that a request's ``traceparent`` names.

        Where an instrumentation of this process has begun a span for the request, they stay that span's.
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
        """A span of a request that was not let through; ``started`` in nanoseconds since 1970 (UTC)."""
        name = semconv.OPERATIONS.get(operation, "chat")
        found: dict[str, Any] = {
            semconv.OPERATION: name, **({semconv.REQUEST_MODEL: model} if model else {}),
            semconv.OUTCOME: "refused", semconv.ERROR_TYPE: code, semconv.STATUS: status,
        }  # fmt: skip
        span = self._tracer.start_span(
            f"{name} {model}".strip(), kind=SpanKind.SERVER, attributes=found, start_time=started
        )
        span.set_status(Status(StatusCode.ERROR, f"refused: {code}"))
        span.end(max(started, time.time_ns()))


def attributes(settlement: Settlement) -> dict[str, Any]:
    """All attributes of a settlement's span."""
    found = _about(settlement)
    for part, names in semconv.USAGE.items():
        value = getattr(settlement.usage, part)
        if value is not None:
            found.update(dict.fromkeys(names, value))
    if settlement.cap is not None:
        found[semconv.REQUEST_MAX_TOKENS] = settlement.cap
    if settlement.choices != 1:
        found[semconv.REQUEST_CHOICES] = settlement.choices
    found[semconv.OUTCOME] = settlement.outcome
    found[semconv.ESTIMATED] = settlement.estimated
    found[semconv.ATTEMPT] = settlement.attempt
    for kind, units in settlement.amounts.items():
        held = settlement.reserved[kind]
        found[f"{semconv.RESERVED}.{kind}"] = held
        found[f"{semconv.SETTLED}.{kind}"] = units
        found[f"{semconv.OVERSHOOT}.{kind}"] = max(0, units - held)
    return found


def _about(settlement: Settlement) -> dict[str, Any]:
    """Attributes that metrics have as well; few values each."""
    found = {
        semconv.OPERATION: semconv.OPERATIONS.get(settlement.operation, "chat"),
        semconv.REQUEST_MODEL: settlement.model,
        **dict.fromkeys(semconv.PROVIDER, settlement.provider),
    }
    if settlement.response_model:
        found[semconv.RESPONSE_MODEL] = settlement.response_model
    if settlement.outcome != Outcome.OK:
        found[semconv.ERROR_TYPE] = settlement.outcome
    return found


def _span(tracer: trace.Tracer, settlement: Settlement) -> None:
    found = attributes(settlement)
    span = tracer.start_span(
        f"{found[semconv.OPERATION]} {settlement.model}", kind=SpanKind.CLIENT, attributes=found,
        start_time=settlement.started,
    )  # fmt: skip
    if settlement.outcome != Outcome.OK:
        what = "not run, nothing charged" if settlement.outcome == Outcome.REJECTED else "charged as estimated"
        span.set_status(Status(StatusCode.ERROR, f"{settlement.outcome}: {what}"))
    span.end(settlement.ended)
