"""OpenTelemetry: what the SDK's in-memory exporters hold after calls of a wrapped client."""

from __future__ import annotations

import contextlib

import pytest

pytest.importorskip("opentelemetry.sdk")
openai = pytest.importorskip("openai")

from opentelemetry.sdk.metrics import MeterProvider  # noqa: E402
from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: E402
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402
from opentelemetry.trace import SpanKind, StatusCode  # noqa: E402

from budgeteer.adapters.openai import wrap  # noqa: E402
from budgeteer.adapters.otel import recorder  # noqa: E402
from budgeteer.metering.estimate import Bounds  # noqa: E402
from helpers.answers import chat, used  # noqa: E402
from helpers.purse import Purse  # noqa: E402
from helpers.upstream import Upstream, error  # noqa: E402

ASK = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}


@pytest.fixture
def recorded():
    """(spans, metrics by name) after a good call, a limited one and a lost one."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    record = recorder(meter_provider=MeterProvider([reader]), tracer_provider=tracers)
    purse = Purse(all=1000)
    with Upstream(chat(usage=used(12, 7, cached=4, reasoning=2)), error(429), error(500)) as provider:
        base = openai.OpenAI(base_url=provider.url, api_key="x", max_retries=0)
        client = wrap(base, purse, bounds=Bounds(overhead=10), on_settle=record)
        for _ in range(3):
            with contextlib.suppress(openai.APIStatusError):
                client.chat.completions.create(**ASK, n=1)
    found = {}
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            found.update({metric.name: metric for metric in scope.metrics})
    return exporter.get_finished_spans(), found, purse


def test_spans_follow_the_conventions(recorded):
    spans, _, purse = recorded
    good, limited, lost = spans
    assert (good.name, good.kind, good.status.status_code) == ("chat gpt-4o", SpanKind.CLIENT, StatusCode.UNSET)
    assert 0 < good.end_time - good.start_time < 60e9
    held = good.attributes["budgeteer.reserved.all"]
    assert dict(good.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.system": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.request.max_tokens": 50,
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.reasoning.output_tokens": 2,
        "budgeteer.outcome": "ok",
        "budgeteer.estimated": False,
        "budgeteer.attempt": 0,
        "budgeteer.reserved.all": held,
        "budgeteer.settled.all": 19,
        "budgeteer.overshoot.all": 0,
    }
    assert (limited.status.status_code, limited.attributes["error.type"]) == (StatusCode.ERROR, "rejected")
    assert limited.attributes["budgeteer.settled.all"] == 0
    assert lost.attributes["budgeteer.settled.all"] == held
    assert lost.attributes["budgeteer.estimated"] is True
    assert purse.left == {"all": 1000 - 19 - held}


def total(metric, **wanted):
    points = [p for p in metric.data.data_points if all(p.attributes.get(k) == v for k, v in wanted.items())]
    return sum(getattr(p, "value", None) if hasattr(p, "value") else p.sum for p in points)


def test_metrics_add_up_to_what_was_charged(recorded):
    _, metrics, purse = recorded
    spent = purse.spent["all"]
    assert total(metrics["budgeteer.settled"]) == spent
    assert total(metrics["budgeteer.settled"], **{"budgeteer.estimated": False}) == 19
    assert total(metrics["budgeteer.overshoot"]) == 0
    tokens = metrics["gen_ai.client.token.usage"]
    assert total(tokens) == spent
    assert total(tokens, **{"gen_ai.token.type": "output", "error.type": None}) == 7
    assert tokens.data.data_points[0].explicit_bounds[:3] == (1, 4, 16)
    counters = "gen_ai.client.inference.usage."
    assert total(metrics[f"{counters}input_tokens"]) + total(metrics[f"{counters}output_tokens"]) == spent
    assert total(metrics[f"{counters}cache_read.input_tokens"]) == 4
    assert total(metrics[f"{counters}reasoning.output_tokens"]) == 2
    assert sum(p.count for p in metrics["gen_ai.client.operation.duration"].data.data_points) == 3


def test_both_names_of_what_was_written_to_the_cache():
    from budgeteer import Usage
    from budgeteer.adapters.otel import attributes
    from budgeteer.metering.settlement import Settlement

    usage = Usage(input=9, output=1, written=5)
    found = attributes(Settlement("anthropic", "chat", "m", "", usage, {"all": 5}, {"all": 10}, False, "ok"))
    assert found["gen_ai.usage.cache_write.input_tokens"] == found["gen_ai.usage.cache_creation.input_tokens"] == 5
    assert found["budgeteer.overshoot.all"] == 5
    assert "gen_ai.usage.cache_read.input_tokens" not in found  # unknown is not 0


def test_metrics_without_spans():
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    record = recorder(spans=False, meter_provider=MeterProvider([reader]), tracer_provider=tracers)
    with Upstream(chat(usage=used(1, 1))) as provider:
        base = openai.OpenAI(base_url=provider.url, api_key="x", max_retries=0)
        wrap(base, Purse(all=999), on_settle=record).chat.completions.create(**ASK)
    assert not exporter.get_finished_spans()
    assert reader.get_metrics_data().resource_metrics


def test_a_span_of_this_process_stays_the_parent():
    from opentelemetry import trace

    from budgeteer.adapters.otel import Incoming

    incoming, tracer = Incoming(TracerProvider()), TracerProvider().get_tracer("server")
    headers = {b"traceparent": b"00-" + b"7" * 32 + b"-" + b"8" * 16 + b"-01", b"x": b"\xff"}
    with incoming.within(headers):
        assert trace.get_current_span().get_span_context().span_id == int("8" * 16, 16)
    assert not trace.get_current_span().get_span_context().is_valid
    with tracer.start_as_current_span("of the server") as own, incoming.within(headers):
        assert trace.get_current_span() is own
