"""Reading answers: however a stream is cut into pieces and whatever is in it, the same is read and nothing breaks."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgeteer.core.errors import InvalidInput
from budgeteer.core.usage import Usage
from budgeteer.metering.call import CUT, OK, Metering
from budgeteer.metering.reading import Events, Reading

METERING = Metering(None)
OPERATIONS = ("chat", "completions", "responses", "embeddings", "messages")


def reading(operation="chat", hides=True, **body):
    return Reading(operation, {"model": "m", "max_tokens": 50, **body}, METERING, hides)


def chunk(**more):
    return {"id": "c", "model": "m-1", **more}


STREAM = [
    chunk(choices=[{"index": 0, "delta": {"content": "Hello "}}]),
    chunk(choices=[{"index": 0, "delta": {"content": "wörld"}, "finish_reason": "stop"}]),
    chunk(choices=[], usage={"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}),
]
ANTHROPIC = [
    {"type": "message_start", "message": {
        "model": "c-1", "usage": {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello world"}},
    {"type": "ping"},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
]  # fmt: skip


def encode(events, end="\n", comment=False):
    blocks = [f"{': hi' + end if comment else ''}data: {json.dumps(event)}{end}{end}" for event in events]
    return ("".join(blocks) + f"data: [DONE]{end}{end}").encode()


@settings(deadline=None)
@given(st.lists(st.integers(0, 500)), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans())
def test_pieces_do_not_matter(cuts, end, comment, hides):
    raw = encode(STREAM, end, comment)
    events, passed = Events(reading(hides=hides), True), b""
    edges = sorted({min(cut, len(raw)) for cut in cuts} | {0, len(raw)})
    for a, b in itertools.pairwise(edges):
        passed += events.feed(raw[a:b])
    passed += events.last()
    answer = events.answer(200, True)
    assert (answer.outcome, answer.usage, answer.model) == (OK, Usage(input=9, output=2), "m-1")
    assert passed == (encode(STREAM[:2], end, comment) if hides else raw)


@settings(deadline=None)
@given(st.integers(0, len(ANTHROPIC)))
def test_a_cut_stream_of_anthropics_does_not_believe_the_count_of_its_start(n):
    found = reading("messages")
    for event in ANTHROPIC[:n]:
        assert found.event(json.dumps(event).encode())
    answer = found.at_end()
    assert answer.outcome == (OK if n == len(ANTHROPIC) else CUT)
    if n == 0:
        assert answer.usage is None
    else:
        assert (answer.usage.input, answer.usage.cached) == (15, 5)
        assert answer.usage.output == (3 if n >= 5 else None)


@pytest.mark.parametrize(
    ("body", "hides"),
    [
        ({}, False),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "low"}, True),
        ({"reasoning": {"effort": "none"}}, False),
        ({"thinking": {"type": "adaptive"}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"output_config": {"effort": "max"}}, True),
        ({"output_config": {"format": {}}}, False),
        ({"prediction": {"type": "content", "content": "x"}}, True),
        ({"modalities": ["text", "audio"]}, True),
        ({"modalities": ["text"]}, False),
    ],
)
def test_what_is_asked_for_may_stay_unseen(body, hides):
    found = reading(**body)
    for event in STREAM[:2]:
        found.event(json.dumps(event).encode())
    answer = found.at_end()
    assert (answer.hides, answer.shown, answer.outcome) == (hides or None, len("Hello wörld".encode()), CUT)


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
names = st.sampled_from([
    "choices", "usage", "delta", "content", "index", "finish_reason", "type", "response", "message", "prompt_tokens",
    "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "prompt_tokens_details", "cached_tokens",
    "text", "tool_calls", "function", "model", "service_tier", "timings", "output", "content_block", "cache_creation",
])  # fmt: skip
words = st.sampled_from(["length", "message_start", "message_delta", "message_stop", "response.completed", "text"])
anything = st.recursive(
    plain | words, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=5), max_leaves=12
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(OPERATIONS), st.lists(anything, max_size=4), st.binary(max_size=30))
def test_nothing_that_an_upstream_says_breaks_the_reader(operation, said, noise):
    found = reading(operation)
    for one in said:
        found.event(json.dumps(one).encode())
        whole = reading(operation).answer(200, json.dumps(one).encode())
        _booked(whole)
    found.event(noise)
    reading(operation).answer(200, noise)
    _booked(found.at_end())


def _booked(answer):
    """It can be settled: never less than nothing, never more than the bound unless the provider says so."""
    planned = METERING.plan("p", "chat", "m", Usage(input=100, output=50))
    settled = METERING.settlement(planned, answer)
    assert settled.amounts["all"] >= 0
    if settled.estimated and (answer.usage is None or answer.usage.input is None):
        assert settled.amounts["all"] <= 150 or answer.usage.output is not None


@pytest.mark.parametrize("operation", OPERATIONS)
def test_deep_nesting_is_read(operation):
    deep = json.dumps({"choices": json.loads("[" * 500 + "]" * 500), "delta": {}, "content": []}).encode()
    reading(operation).event(deep)
    reading(operation).answer(200, deep)
    for depth in (900, 5000, 100_000):
        raw = b'{"choices": ' + b"[" * depth + b"]" * depth + b"}"
        reading(operation).event(raw)
        reading(operation).answer(200, raw)


def test_an_event_without_an_end_is_an_error():
    events = Events(reading(), True)
    for _ in range(15):
        events.feed(b"x" * 2**20)
    with pytest.raises(InvalidInput, match="none of events"):
        events.feed(b"x" * 2**21)
