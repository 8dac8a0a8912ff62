"""Reading answers: however a stream is cut into pieces and whatever is in it, the same is read and nothing breaks."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgeteer.core.errors import InvalidInput
from budgeteer.core.usage import Usage
from budgeteer.metering.call import Metering
from budgeteer.metering.outcome import Outcome
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
@given(st.lists(st.integers(0, 500)), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.booleans())
def test_pieces_do_not_matter(cuts, end, comment, hides):
    raw = encode(STREAM, end, comment)
    events, passed = Events(reading(hides=hides), True), b""
    edges = sorted({min(cut, len(raw)) for cut in cuts} | {0, len(raw)})
    for a, b in itertools.pairwise(edges):
        passed += events.feed(raw[a:b])
    passed += events.last()
    answer = events.answer(200, True)
    assert (answer.outcome, answer.usage, answer.model) == (Outcome.OK, Usage(input=9, output=2), "m-1")
    assert passed == (encode(STREAM[:2], end, comment) if hides else raw)


ENDS = ("\n\n", "\r\r", "\r\n\r\n", "\n\r", "\n\r\n", "\r\n\n", "\r\r\n", "\r\n\r")
"""An end of a line and an empty line: each of them ends with a line feed, a carriage return, or both."""


@settings(deadline=None)
@given(st.lists(st.integers(0, 500)), st.lists(st.sampled_from(ENDS), min_size=4, max_size=4), st.booleans())
def test_any_empty_line_ends_an_event(cuts, ends, mark):
    blocks = [f"event: x\ndata: {json.dumps(one)}{end}" for one, end in zip(STREAM, ends, strict=False)]
    raw = ("\ufeff" * mark + "".join(blocks) + f"data: [DONE]{ends[3]}").encode()
    events, passed = Events(reading(hides=False), True), b""
    edges = sorted({min(cut, len(raw)) for cut in cuts} | {0, len(raw)})
    for a, b in itertools.pairwise(edges):
        passed += events.feed(raw[a:b])
    assert events.last() == b""
    assert passed == raw
    answer = events.answer(200, True)
    assert (answer.outcome, answer.usage, answer.seen) == (
        Outcome.OK,
        Usage(input=9, output=2),
        len("Hello wörld".encode()),
    )


@pytest.mark.parametrize("end", ENDS)
def test_an_event_is_passed_on_when_its_empty_line_is_there(end):
    events = Events(reading(hides=False), True)
    block = f"data: {json.dumps(STREAM[0])}{end}".encode()
    assert events.feed(block[:-1]) + events.feed(block[-1:]) == block
    assert events.reading.chunks == 1


def test_the_usage_that_is_hidden_takes_the_rest_of_its_empty_line_along():
    events = Events(reading(hides=True), True)
    raw = encode(STREAM, "\r\n")
    cut = raw.index(b"data: [DONE]") - 1
    assert events.feed(raw[:cut]) + events.feed(raw[cut:]) == encode(STREAM[:2], "\r\n")


@pytest.mark.parametrize("kind", ["", "application/json", "Text/Event-Stream", " text/event-stream; charset=utf-8"])
def test_what_was_asked_as_a_stream_is_read_as_one(kind):
    assert reading(stream=True).is_stream(kind)
    assert reading().is_stream(kind) is ("vent" in kind)
    events = Events(reading(stream=True, hides=False), True)
    raw = encode(STREAM)
    assert events.feed(raw) == raw
    assert events.answer(200, True).usage == Usage(input=9, output=2)


WHOLE = {"model": "m-1", "choices": [{"index": 0, "message": {"content": "Hello"}}]}


@pytest.mark.parametrize("before", ["", " \r\n", "\ufeff"])
def test_a_body_that_begins_with_a_brace_is_whole_though_a_stream_was_asked(before):
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    raw = (before + json.dumps({**WHOLE, "usage": usage}, indent=1)).encode()
    events = Events(reading(stream=True), True)
    assert b"".join(events.feed(raw[i : i + 7]) for i in range(0, len(raw), 7)) == raw
    assert not events.streamed
    answer = events.answer(200, True)
    assert (answer.outcome, answer.usage) == (Outcome.OK, Usage(input=9, output=2))


LONG = "the same five words again " * 20_000
NOT_UNDERSTOOD = {
    "text": LONG.encode(),
    "text in lines": LONG.replace("five ", "five\n").encode(),
    "text in paragraphs": LONG.replace("five ", "five\n\n").encode(),
    "events of text": b"".join(b"data: " + LONG[i : i + 300].encode() + b"\n\n" for i in range(0, len(LONG), 300)),
    "another shape": b"".join(
        b'data: {"text": "%s"}\n\n' % LONG[i : i + 300].encode() for i in range(0, len(LONG), 300)
    ),
    "lines of JSON": b"".join(b'{"choices": ["%s"]}\n' % LONG[i : i + 300].encode() for i in range(0, len(LONG), 300)),
    "an array": json.dumps([LONG]).encode(),
    "an object of another shape": json.dumps({"result": LONG}).encode(),
    "cut": json.dumps({**WHOLE, "more": LONG}).encode()[:-9],
}


@pytest.mark.parametrize("name", NOT_UNDERSTOOD)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("operation", ["chat", "completions", "responses", "messages"])
def test_what_is_not_understood_counts_by_its_bytes(name, stream, operation):
    """At least a token in 16 bytes, beyond what an answer has around its text; so it is cut, or charged."""
    body = NOT_UNDERSTOOD[name]
    found = reading(operation, stream=stream)
    events = Events(found, found.is_stream("text/plain"))
    half = len(body) // 2
    events.feed(body[:half])
    assert found.least >= half // 20 - 400  # while it comes
    events.feed(body[half:])
    events.last()
    for ended in (True, False):
        answer = events.answer(200, ended)
        assert answer.least >= len(body) // 20 - 400
        assert answer.usage is None
    planned = METERING.plan("openai", operation, "m", Usage(input=9, output=50))
    assert METERING.settlement(planned, answer).amounts["all"] > 20_000


def test_a_stream_that_nobody_asked_for_is_counted_as_one():
    answer = reading().answer(200, encode([STREAM[0]] * 2000, "\r"))
    assert answer.least == 2000
    assert reading().answer(200, encode(STREAM)).usage == Usage(input=9, output=2)


@pytest.mark.parametrize(
    ("operation", "more"),
    [
        ("embeddings", {}), ("chat", {"logprobs": True, "top_logprobs": 20}),
        ("responses", {"instructions": "x" * 30_000}),
    ],
)  # fmt: skip
def test_long_bodies_that_are_understood_are_not_cut(operation, more):
    """Vectors, log-probabilities, and requests that answers repeat are no tokens of output."""
    found = reading(operation, **more)
    events = Events(found, False)
    events.feed(b'{"data": [' + b"0.123456, " * 3_000)
    assert found.least <= 50


def test_signs_of_life_do_not_count():
    found = reading(stream=True)
    events = Events(found, True)
    events.feed(b": still here\n\n" * 5_000 + b"event: ping\n\n" * 500)
    assert found.least == 0


@settings(deadline=None)
@given(st.integers(0, len(ANTHROPIC)))
def test_a_cut_stream_of_anthropics_does_not_believe_the_count_of_its_start(n):
    found = reading("messages")
    for event in ANTHROPIC[:n]:
        assert found.event(json.dumps(event).encode())
    answer = found.at_end()
    assert answer.outcome == (Outcome.OK if n == len(ANTHROPIC) else Outcome.CUT)
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
    assert (answer.hides, answer.shown, answer.outcome) == (hides or None, len("Hello wörld".encode()), Outcome.CUT)


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
