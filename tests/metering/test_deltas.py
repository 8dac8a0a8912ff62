"""Events that hold only text are read by a short way: it has to find what the long way finds, to the last count."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgeteer.metering.call import Metering
from budgeteer.metering.deltas import Delta, Frame, delta_in, frame_of
from budgeteer.metering.estimate import Bounds
from budgeteer.metering.reading import Events, Reading

WORDS = Bounds(tokens=lambda text: len(text.split()))
TEXTS = st.one_of(
    st.sampled_from(["tok ", "", "\n", 'a "quoted" word', "\\", "gpt-x", "\x7f", "é", "你好"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
ODDITIES: list[dict[str, Any]] = [
    {"finish_reason": "length"},
    {"delta": {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}},
    {"delta": {"content": "a", "reasoning": "b"}},
    {"error": {"code": 502}},
    {"index": 1},
    {"usage": {"prompt_tokens": 3, "completion_tokens": 2}},
]


def chat(text: str, about: dict[str, Any], **beside: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, **about}
    return {"id": "c", "object": "chat.completion.chunk", "model": "gpt-x", "choices": [choice], **beside}


def completion(text: str, about: dict[str, Any], **beside: Any) -> dict[str, Any]:
    return {"id": "c", "model": "m", "choices": [{"index": 0, "text": text, **about}], **beside}


def message(text: str, about: dict[str, Any], **beside: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}, **about, **beside}


def response(text: str, about: dict[str, Any], **beside: Any) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "output_index": 0, "delta": text, **about, **beside}


SHAPES = {"chat": chat, "completions": completion, "messages": message, "responses": response}
BESIDE: list[dict[str, Any]] = [
    {},
    {"model": "another"},
    {"service_tier": "flex"},
    {"usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}},
    {"choices": []},
    {"error": {"type": "overloaded_error"}},
    {"type": "message_stop"},
    {"type": "response.function_call_arguments.delta"},
    {"usage": None},
    {"obfuscation": "x7"},
]


def state(reading: Reading) -> dict[str, Any]:
    told = (reading.usage, reading.model, reading.service, reading.text, reading.chunks, reading.full, reading.done)
    tokens = (reading.least, reading.likely, reading.length())
    return {"told": told, "tokens": tokens, "error": reading.error, "end": reading.at_end()}


def read(operation: str, blocks: list[bytes], bounds: Bounds, together: int) -> tuple[dict[str, Any], bytes]:
    reading = Reading(operation, {"model": "m", "stream": True}, Metering(None), True, bounds=bounds)
    events, passed = Events(reading, True), b""
    stream = b"".join(blocks)
    for begin in range(0, len(stream), together):
        passed += events.feed(stream[begin : begin + together])
    return state(reading), passed + events.last()


@given(data=st.data())
def test_the_short_way_finds_what_the_long_way_finds(data: st.DataObject) -> None:
    operation = data.draw(st.sampled_from(sorted(SHAPES)))
    bounds = data.draw(st.sampled_from([Bounds(), WORDS]))
    end = data.draw(st.sampled_from([b"\n\n", b"\r\n\r\n"]))
    events = data.draw(
        st.lists(
            st.tuples(TEXTS, st.sampled_from([{}] * 8 + ODDITIES), st.sampled_from([{}] * 8 + BESIDE)), max_size=12
        )
    )
    plain = data.draw(st.booleans())
    short, long = [], []
    for text, about, beside in events:
        body = SHAPES[operation](text, about, **beside)
        name = b"" if operation == "chat" else b"event: x" + end[: len(end) // 2]
        for blocks, more in ((short, {}), (long, {"unknown": 1})):  # a field that is not known takes the long way
            written = json.dumps({**body, **more}, ensure_ascii=plain).encode()
            blocks.append(name + b"data: " + written + end)
    together = data.draw(st.integers(1, 4000))
    fast, _ = read(operation, short, bounds, together)
    slow, _ = read(operation, long, bounds, 10**6)
    assert fast == slow


def test_a_plain_stream_is_read_within_one_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    whole = Reading.event
    monkeypatch.setattr(Reading, "event", lambda self, data: parsed.append(data) or whole(self, data))
    blocks = [b"data: " + json.dumps(chat(f"word {n} ", {})).encode() + b"\n\n" for n in range(50)]
    found, passed = read("chat", [*blocks, b"data: [DONE]\n\n"], Bounds(), 100)
    assert len(parsed) == 2  # the first and the last
    assert "".join(found["told"][3][0]) == "".join(f"word {n} " for n in range(50))
    assert found["told"][4] == 50
    assert passed == b"".join([*blocks, b"data: [DONE]\n\n"])


def test_a_model_that_changes_and_changes_back_is_told_as_it_came() -> None:
    first, other = chat("a", {}), chat("b", {"finish_reason": "stop"}, model="other")
    blocks = [b"data: " + json.dumps(body).encode() + b"\n\n" for body in (first, first, other, first)]
    assert read("chat", blocks, Bounds(), 10**6)[0]["told"][1] == "gpt-x"


@pytest.mark.parametrize(
    "written",
    [b'", "usage": {"completion_tokens": 1}, "x": "', b"a\\n", b"a\x00b", b"\xff", b'"}}], "error": 1, "y": [{"z": "'],
)
def test_bytes_that_could_be_more_than_text_are_none_of_a_frame(written: bytes) -> None:
    event = json.dumps(chat("Hi", {})).encode()
    frame = frame_of(event, Delta(0, "Hi"), lambda data: delta_in("chat", json.loads(data)))
    assert isinstance(frame, Frame)
    assert frame.text(event) == "Hi"
    assert frame.text(event.replace(b"Hi", written)) is None


def test_a_text_that_stands_elsewhere_first_has_no_frame() -> None:
    event = json.dumps(chat("gpt-x", {})).encode()
    assert frame_of(event, Delta(0, "gpt-x"), lambda data: delta_in("chat", json.loads(data))) is None
