"""Requests: whatever a client sends is refused, or bounded by what is sent upstream."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest

for needed in ("aiohttp", "orjson"):
    pytest.importorskip(needed)
import orjson  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from budgeteer.core.errors import InvalidInput, UnknownPrice  # noqa: E402
from budgeteer.gateway import keys  # noqa: E402
from budgeteer.gateway.ask import Ask  # noqa: E402
from budgeteer.gateway.config import Defaults, Model  # noqa: E402
from budgeteer.gateway.prepare import prepare  # noqa: E402
from budgeteer.gateway.refusal import Refused  # noqa: E402
from budgeteer.gateway.routes import ROUTES  # noqa: E402
from budgeteer.metering.call import Metering  # noqa: E402
from budgeteer.metering.estimate import Bounds  # noqa: E402
from budgeteer.metering.reading import CAPS as CAPPED  # noqa: E402
from budgeteer.metering.thinking import BUDGETS, TASK, at  # noqa: E402
from budgeteer.prices import Price, Rates, of  # noqa: E402
from helpers.requests import KEY, METERING, MODEL  # noqa: E402

number = st.none() | st.booleans() | st.integers(-5, 200) | st.floats() | st.text(max_size=3)
shapes = st.sampled_from(["role", "content", "type", "text", "function", "name"])
anything = st.recursive(
    number, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(shapes, inner, max_size=3), max_leaves=8
)
tokens = st.lists(st.integers(0, 9), max_size=3)
prompts = st.text(max_size=3) | tokens | st.lists(tokens, max_size=4) | st.lists(st.text(max_size=2), max_size=9)
PROMPT = ("messages", "input", "prompt", "tools", "system")
CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
OTHERS = ("thinking", "reasoning", "stream", "stream_options", "service_tier", "user", "metadata", "reasoning_effort")
fields = st.fixed_dictionaries(
    {"model": st.just("m")},
    optional={
        **dict.fromkeys((*CAPS, "n", "best_of", "n_predict"), number),
        **dict.fromkeys((*PROMPT, *OTHERS), anything),
        "prompt": anything | prompts,
    },
)


TEXT = sorted(route for route, about in ROUTES.items() if about.operation in CAPPED)


def made(route, sent):
    """Tokens that a server makes which goes through all prompts and choices, each up to the cap."""
    (cap,) = [sent[name] for name in CAPS if sent.get(name) is not None]
    prompt = sent.get("prompt")
    several = route == "completions" and isinstance(prompt, list) and any(not _is_token(one) for one in prompt)
    total = 0
    for _ in prompt if several else [prompt]:
        for _ in range(max(sent.get("n") or 1, sent.get("best_of") or 1)):
            total += cap
    return total


def _is_token(one):
    return isinstance(one, int) and not isinstance(one, bool)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(TEXT), fields, st.integers(0, 3))
def test_a_request_is_refused_or_bounded(route, body, twice):
    raw = json.dumps(body).encode()
    for _ in range(twice):  # fields again, with other values; parsers differ in which one counts
        raw = b'{"max_tokens": 99999, "n": 50, ' + raw[1:]
    try:
        found = prepare(Ask(route, raw, KEY), MODEL, METERING, "openai")
    except (Refused, InvalidInput):
        return
    sent = json.loads(found.content, object_pairs_hook=_once)
    worst = found.planned.worst
    assert sent["model"] == "m-upstream"
    prompt = {name: sent[name] for name in PROMPT if name in sent}
    assert worst.input >= len(orjson.dumps(prompt))
    if route == "embeddings":
        assert worst.output == 0
        return
    assert 1 <= max(sent.get(name) or 0 for name in CAPS) <= 100
    assert "n_predict" not in sent
    assert worst.output == made(route, sent)


def _once(pairs):
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names)
    return dict(pairs)


@pytest.mark.parametrize(
    ("name", "written"),
    [("cache_control", (None, 0)), ("cache_c\\u006fntrol", (None, 0)), ("title", (0, 0))],
)
def test_escaped_names_do_not_hide_that_the_cache_is_written(name, written):
    part = '{"type": "text", "text": "Hi", "' + name + '": {"type": "ephemeral"}}'
    raw = '{"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": [' + part + "]}]}"
    found = prepare(Ask("messages", raw.encode(), KEY), replace(MODEL, price="claude-x"), METERING, "anthropic")
    assert (found.planned.worst.written, found.planned.worst.written_long) == written


def test_escaped_names_do_not_hide_a_picture_or_a_cap():
    raw = b'{"model": "m", "max_tok\\u0065ns": 5, "messages": [{"content": ['
    raw += b'{"type": "im\\u0061ge_url", "url": "data:,x"}]}]}'
    found = prepare(Ask("chat/completions", raw, KEY), MODEL, METERING, "openai")
    assert found.planned.worst.input > 48_000
    assert found.planned.worst.output == 5
    assert b"\\u" not in found.content


@pytest.mark.parametrize("depth", [150, 260, 900, 5000, 10**5])
def test_deep_bodies_are_refused_not_failed(depth):
    for inner in (b'"image_url"', b"1"):
        raw = b'{"model": "m", "messages": ' + b"[" * depth + inner + b"]" * depth + b"}"
        if depth < 200:
            assert prepare(Ask("chat/completions", raw, KEY), MODEL, METERING, "openai").content
        else:
            with pytest.raises(Refused) as refused:
                prepare(Ask("chat/completions", raw, KEY), MODEL, METERING, "openai")
            assert refused.value.status == (413 if depth > 50_000 else 400)


def test_a_picture_is_not_counted_by_the_bytes_of_its_data():
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 500_000}}
    body = {"model": "m", "messages": [{"role": "user", "content": [picture]}]}
    found = prepare(Ask("chat/completions", json.dumps(body).encode(), KEY), MODEL, METERING, "openai")
    assert 48_169 <= found.planned.worst.input < 49_000


def ready(body, route="chat/completions", model=MODEL, key=KEY, metering=METERING):
    raw = body if isinstance(body, bytes) else json.dumps({"model": "m", **body}).encode()
    return prepare(Ask(route, raw, key), model, metering, "openai")


HI = [{"role": "user", "content": "Hi"}]


def test_a_hundred_prompts_are_a_hundred_answers():
    found = ready({"prompt": ["a"] * 100, "max_tokens": 100, "n": 2}, "completions")
    assert (found.planned.worst.output, found.planned.choices) == (100 * 2 * 100, 200)
    assert found.reading.choices == 200
    assert ready({"input": ["a"] * 100}, "embeddings").planned.worst.output == 0


@pytest.mark.parametrize("cap", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"max_tokens": 60},
        {"max_completion_tokens": 60},
        {"max_tokens": 70, "max_completion_tokens": 60},
        {"max_tokens": 60, "max_completion_tokens": None},
        {"max_tokens": 60, "n_predict": 99_999, "num_predict": -1, "max_new_tokens": 9999},
    ],
)
def test_the_cap_has_the_name_that_the_upstream_knows(cap, asked):
    model = replace(MODEL, cap=cap)
    sent = json.loads(ready({"messages": HI, **asked}, model=model).content)
    assert {name: sent[name] for name in sent if "max" in name or "predict" in name} == {cap: 60 if asked else 100}
    assert json.loads(ready({"input": "Hi"}, "responses", model=model).content)["max_output_tokens"] == 100


@pytest.mark.parametrize(
    "name", ["MAX_TOKENS", "max_token\u017f", "N", "Stream", "MODEL", "Tools", "\u212aey", "Models"]
)
def test_fields_that_some_servers_take_for_a_known_one_are_refused(name):
    raw = json.dumps({"model": "m", "messages": HI, "max_tokens": 5, name: 100_000}, ensure_ascii=False).encode()
    with pytest.raises(Refused, match="not passed on" if name == "\u212aey" else "give only that field"):
        ready(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"m-upstream","max_tokens":5,"messages":[],"tools":[{"type":"web_search"}],"tools":[]}',
        b'{"model":"m-upstream","max_tokens":5,"messages":[],"tools":[{"type":"web_search","name":"x","type":"function"}]}',
        b'{"model":"m-upstream","max_tokens":5,"messages":[],"top_k":1,"top_k":2}',
        b'{"model":"m-upstream","max_tokens":5,"messages":[{"content":[{"type":"image_url"}],"content":"Hi"}]}',
    ],
)
def test_fields_given_twice_at_any_level_are_sent_once(raw):
    found = ready(raw)
    assert found.content == orjson.dumps(orjson.loads(raw)) != raw


def test_a_body_that_can_be_read_in_one_way_only_is_sent_as_it_came():
    raw = b'{ "model": "m-upstream",\n "max_tokens": 5, "messages": [{"content": "\\"a\\" \\/ \xc3\xa9 }{"}] }'
    assert ready(raw).content == raw


def test_numbers_that_grow_when_they_are_written_again_are_bounded_as_sent():
    raw = b'{"model":"m","max_tokens":5,"tools":[{"name":"t","input_schema":{"enum":[' + b"1e15," * 500 + b"1]}}]}"
    found = ready(raw)
    assert len(found.content) > 2 * len(raw)
    assert found.planned.worst.input >= len(orjson.dumps(json.loads(found.content)["tools"])) > 8000


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({"messages": HI, "models": ["gpt-dear"]}, "models"),
        ({"messages": HI, "plugins": [{"id": "web"}]}, "plugins"),
        ({"messages": HI, "provider": {"order": ["dear"]}}, "provider"),
        ({"messages": HI, "fallbacks": ["dear"]}, "fallbacks"),
        ({"messages": HI, "speed": "fast"}, "'standard'"),
        ({"messages": HI, "inference_geo": "us"}, "'global'"),
        ({"messages": HI, "context_management": {"edits": [{"type": "compact_20260112"}]}}, "clear"),
        ({"messages": HI, "context_management": [{"type": "compaction"}]}, "clear"),
        ({"messages": HI, "modalities": ["text", "image"]}, "only text and audio"),
        ({"messages": HI, "web_search_options": {"a": 1}}, "give max_input of m "),
        ({"messages": HI, "tools": [{"type": "web_search"}]}, "give max_input of m "),
        ({"messages": [{"role": "user", "content": [{"type": "audio_url"}]}]}, "give max_input of m "),
    ],
)
def test_what_changes_the_bill_and_has_no_bound_is_refused(body, what):
    with pytest.raises(Refused, match=what) as refused:
        ready(body)
    assert (refused.value.status, refused.value.code) == (400, "not_bounded")


def test_what_does_not_change_the_bill_passes():
    body = {"messages": HI, "speed": "standard", "inference_geo": None, "models": [], "modalities": ["text"]}
    body["context_management"] = {"edits": [{"type": "clear_tool_uses_20250919"}]}
    assert ready(body).planned.worst.audio_output is None


def test_max_input_is_what_is_hidden_at_most():
    model = replace(MODEL, bounds=Bounds(max_output=100, overhead=7, max_input=9000))
    body = {"messages": HI, "tools": [{"type": "web_search"}]}
    assert ready(body, model=model).planned.worst.input == 9007
    assert ready({"messages": HI}, model=model).planned.worst.input < 200


def test_anthropics_libraries_are_told_to_send_a_stored_conversation_whole():
    """Their tool runners read these details, and ask again without a thread."""
    body = {"messages": HI, "max_tokens": 50, "thread": {"type": "create"}}
    with pytest.raises(Refused, match="thread") as refused:
        ready(body, "messages")
    details = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    assert json.loads(refused.value.body("anthropic"))["error"]["details"] == details
    with pytest.raises(Refused) as refused:
        ready({**body, "thread": None, "tools": [{"type": "web_search"}]}, "messages")
    assert "details" not in json.loads(refused.value.body("anthropic"))["error"]
    assert ready(body, "messages", replace(MODEL, bounds=Bounds(max_output=100, max_input=9000))).planned.worst.input


def test_choices_of_routes_that_have_none_are_left_out():
    found = ready({"input": "Hi", "n": 8, "best_of": 9, "max_output_tokens": 10}, "responses")
    assert found.planned.worst.output == 10
    assert not {"n", "best_of"} & set(json.loads(found.content))


def test_a_prediction_adds_to_the_output():
    prediction = {"type": "content", "content": "word " * 200}
    found = ready({"messages": HI, "max_tokens": 10, "n": 2, "prediction": prediction})
    assert found.planned.worst.output == 2 * (10 + len(json.dumps(prediction)))


def test_a_model_of_hidden_reasoning_hides_it():
    model = replace(MODEL, bounds=Bounds(max_output=100, hidden_reasoning=1))
    assert ready({"messages": HI}, model=model).reading.hides
    assert not ready({"messages": HI}).reading.hides


def test_each_upstream_has_bounds_of_its_own():
    ask = Ask("chat/completions", json.dumps({"model": "m", "messages": HI, "user": "y" * 1000}).encode(), KEY)
    size = len(ask.raw)
    small = prepare(ask, MODEL, METERING, "openai").planned.worst.input
    large = Model("m", (), "m", "m", Bounds(max_output=100, margin=Fraction(2), overhead=5000))
    assert small == size + 7
    assert prepare(ask, large, METERING, "openai").planned.worst.input == 2 * size + 5000
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/x"}}]}]
    ask = Ask("chat/completions", json.dumps({"model": "m", "messages": picture}).encode(), KEY)
    dear = Model("m", (), "m", "m", Bounds(max_output=100, image=10**6))
    assert prepare(ask, MODEL, METERING, "openai").planned.worst.input < 50_000
    assert prepare(ask, dear, METERING, "openai").planned.worst.input > 10**6


def test_speech_is_reserved_at_its_price_or_refused():
    text = Rates(input=Decimal("2.5"), output=Decimal(10))
    audio = Rates(input=Decimal("2.5"), output=Decimal(10), audio_input=Decimal(32), audio_output=Decimal(64))
    metering = Metering(None, ("money",), of({"m": Price(audio), "text": Price(text)}))
    model = replace(MODEL, bounds=Bounds(max_output=4096, overhead=0, max_input=1000))
    body = {"messages": HI, "modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
    found = ready(body, model=model, metering=metering)
    assert found.planned.amounts["money"] == found.planned.worst.input * 2_500_000 + 4096 * 64_000_000
    assert ready({"messages": HI}, model=model, metering=metering).planned.amounts["money"] < 4200 * 10_000_000
    with pytest.raises(UnknownPrice, match="audio_output"):
        ready(body, model=replace(model, price="text"), metering=metering)
    heard = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}]}]
    found = ready({"messages": heard, "max_tokens": 1}, model=model, metering=metering)
    assert found.planned.amounts["money"] == 1000 * 32_000_000 + 10_000_000


NO_THOUGHT, _ = keys.make(
    {"path": "a", "max_reasoning": 0}, Defaults((), (), (), (), ("*",), None, None, 0), ("all",), 0
)
SOME, _ = keys.make({"path": "a", "max_reasoning": 90}, Defaults((), (), (), (), ("*",), None, None, 90), ("all",), 0)


@pytest.mark.parametrize(
    ("body", "passes"),
    [
        ({"reasoning_effort": "low"}, False),
        ({"reasoning_effort": "none"}, True),
        ({"reasoning": {"effort": "high"}}, False),
        ({"reasoning": {"enabled": True}}, False),
        ({"reasoning": {"effort": None}, "reasoning_effort": "low"}, False),
        ({"thinking": {"type": "adaptive"}}, False),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, False),
        ({"thinking": {"type": "disabled"}}, True),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, False),
        ({"output_config": {"effort": "max"}}, False),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}}, True),
        ({"chat_template_kwargs": {"enable_thinking": True}}, False),
        ({"chat_template_kwargs": {"enable_thinking": False}}, True),
        ({"enable_thinking": True}, False),
        ({}, True),
    ],
)
def test_a_key_that_allows_no_reasoning(body, passes):
    if passes:
        assert ready({"messages": HI, "max_tokens": 5, **body}, key=NO_THOUGHT).content
        return
    with pytest.raises(Refused, match="allows no reasoning"):
        ready({"messages": HI, "max_tokens": 5, **body}, key=NO_THOUGHT)


@pytest.mark.parametrize("budget", [91, 5000, 5000.5, "5000", -1])
def test_budgets_of_thinking_are_lowered_to_the_keys(budget):
    for path in BUDGETS:
        body = budget
        for name in reversed(path):
            body = {name: body}
        sent = json.loads(ready({"messages": HI, "max_tokens": 5, **body}, key=SOME).content)
        most = (budget if type(budget) is int and budget > 0 else 20_000) if path in TASK else 90
        assert at(sent, path) == most, path
