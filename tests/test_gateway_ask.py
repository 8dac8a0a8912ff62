"""Requests: whatever a client sends is refused, or bounded by what is sent upstream."""

from __future__ import annotations

import json

import pytest

for needed in ("aiohttp", "orjson"):
    pytest.importorskip(needed)
import orjson  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from budgeteer.adapters.metering import Metering  # noqa: E402
from budgeteer.errors import InvalidInput  # noqa: E402
from budgeteer.gateway import keys  # noqa: E402
from budgeteer.gateway.ask import ROUTES, Ask, prepare  # noqa: E402
from budgeteer.gateway.config import Defaults, Model  # noqa: E402
from budgeteer.gateway.refusal import Refused  # noqa: E402
from budgeteer.ledger.estimate import Bounds  # noqa: E402

METERING = Metering(None)
MODEL = Model("m", (), "m-upstream", "m", Bounds(max_output=100, overhead=7))
KEY, _ = keys.make({"path": "a"}, Defaults((), (), (), (), ("*",), None, None, None), ("all",), 0)

number = st.none() | st.booleans() | st.integers(-5, 200) | st.floats() | st.text(max_size=3)
shapes = st.sampled_from(["role", "content", "type", "text", "function", "name"])
anything = st.recursive(
    number, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(shapes, inner, max_size=3), max_leaves=8
)
PROMPT = ("messages", "input", "prompt", "tools", "system")
CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
OTHERS = ("thinking", "reasoning", "stream", "stream_options", "service_tier", "user", "metadata", "reasoning_effort")
fields = st.fixed_dictionaries(
    {"model": st.just("m")},
    optional={
        **dict.fromkeys((*CAPS, "n", "best_of", "n_predict"), number),
        **dict.fromkeys((*PROMPT, *OTHERS), anything),
    },
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(ROUTES)), fields, st.integers(0, 3))
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
    caps = [sent[name] for name in CAPS if sent.get(name) is not None]
    assert caps
    assert all(1 <= cap <= 100 for cap in caps)
    assert "n_predict" not in sent
    choices = max([int(sent.get(name) or 1) for name in ("n", "best_of")]) if route.endswith("completions") else 1
    assert worst.output == choices * max(caps)


def _once(pairs):
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names)
    return dict(pairs)


def test_escaped_names_do_not_hide_a_picture_or_a_cap():
    raw = b'{"model": "m", "max_tok\\u0065ns": 5, "messages": [{"content": [{"type": "im\\u0061ge_url", "url": "x"}]}]}'
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
            assert refused.value.status == 400


def test_a_picture_is_not_counted_by_the_bytes_of_its_data():
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 500_000}}
    body = {"model": "m", "messages": [{"role": "user", "content": [picture]}]}
    found = prepare(Ask("chat/completions", json.dumps(body).encode(), KEY), MODEL, METERING, "openai")
    assert 48_169 <= found.planned.worst.input < 49_000
