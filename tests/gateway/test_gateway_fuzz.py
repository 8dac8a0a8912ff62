"""Bodies that nobody would write: every one is answered, none fails the gateway, and the books are right after each."""

from __future__ import annotations

import json
import logging
import time

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from helpers.gateway_fixture import ADMIN, Running, toml  # noqa: E402
from helpers.upstream import Upstream, echo  # noqa: E402

EXAMPLES = [40, pytest.param(600, marks=pytest.mark.slow)]
"""Of a test that runs always, and of one that draws others every time (``make test-slow``)."""


class Pairs(list):
    """An object as its (name, value) pairs, so that a name may stand there twice."""


class Raw(bytes):
    """A value as it is written."""


def written(value, escaped):
    """JSON of a value; ``escaped``: with ASCII alone."""
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, Pairs):
        inner = [written(name, escaped) + b": " + written(each, escaped) for name, each in value]
        return b"{" + b", ".join(inner) + b"}"
    if isinstance(value, list):
        return b"[" + b", ".join(written(each, escaped) for each in value) + b"]"
    return json.dumps(value, ensure_ascii=escaped).encode("utf-8", "surrogatepass")


NAMES = [
    "role", "content", "type", "text", "name", "model", "input", "messages", "max_tokens", "n", "stream", "tools", "id",
    "image_url", "url", "detail", "source", "data", "media_type", "tool_calls", "function", "arguments",
    "cache_control",
    "ttl", "thinking", "budget_tokens", "stream_options", "include_usage", "max_output_tokens", "stop", "logprobs",
    "response_format", "schema", "system", "metadata", "user", "output", "call_id", "summary", "title", "file_id",
]  # fmt: skip
"""Names that mean something somewhere in a body."""
TYPES = [
    "text", "image_url", "image", "input_text", "input_image", "input_file", "document", "tool_use", "tool_result",
    "function", "function_call", "function_call_output", "message", "item_reference", "reasoning", "thinking",
    "web_search", "computer_use_preview", "json_schema", "base64", "url", "ephemeral", "enabled", "input_audio",
]  # fmt: skip
odd_texts = st.sampled_from(
    [
        "",
        "\ud800",
        "\x00",
        "\u202e",
        "é",
        "👩‍👩‍👧",
        "\uffff",
        "a" * 5000,
        "-1",
        "null",
        "http://127.0.0.1/",
        "data:,",
        "user",
    ]
)
texts = odd_texts | st.text(max_size=12) | st.sampled_from(TYPES)
numbers = st.sampled_from(
    [0, -1, 1, 2**31, 2**63, 2**64, 10**30, 0.5, -0.0, 1e308, Raw(b"1e999"), Raw(b"-1E+400"), Raw(b"1" * 400),
     Raw(b"01"), Raw(b"NaN"), Raw(b"Infinity"), Raw(b"1."), Raw(b"0x1")]
)  # fmt: skip
names = st.sampled_from(NAMES) | texts
leaves = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.lists(st.tuples(names, inner), max_size=4).map(Pairs),
    max_leaves=12,
)  # fmt: skip
parts = st.builds(
    lambda kind, more: Pairs([("type", kind), *more]), texts, st.lists(st.tuples(names, values), max_size=4)
)
contents = st.just("Hi") | st.lists(parts, min_size=1, max_size=3) | values
messages = st.lists(
    st.builds(
        lambda role, content, more: Pairs([("role", role), ("content", content), *more]),
        st.sampled_from(["user", "assistant", "system", "tool", "developer"]), contents,
        st.lists(st.tuples(names, values), max_size=2),
    ),
    min_size=1, max_size=3,
)  # fmt: skip
ROUTES = {
    "chat/completions": st.tuples(st.just("messages"), messages),
    "completions": st.tuples(st.just("prompt"), st.just("Hi") | values),
    "responses": st.tuples(st.just("input"), st.just("Hi") | messages | st.lists(parts, max_size=3) | values),
    "messages": st.tuples(st.just("messages"), messages),
    "messages/count_tokens": st.tuples(st.just("messages"), messages),
    "embeddings": st.tuples(st.just("input"), st.just("Hi") | values),
    "moderations": st.tuples(st.just("input"), st.just("Hi") | values),
}
TOP = [
    "max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of", "stream", "stream_options", "tools",
    "tool_choice", "thinking", "reasoning", "reasoning_effort", "response_format", "text", "system", "instructions",
    "user", "metadata", "stop", "temperature", "store", "previous_response_id", "service_tier", "logit_bias",
    "prediction",
    "modalities", "web_search_options", "model", "truncation", "encoding_format", "dimensions", "suffix", "echo",
]  # fmt: skip
"""Fields of the top."""


@st.composite
def bodies(draw):
    """A route, and a body for it that is nearly right."""
    route = draw(st.sampled_from([*ROUTES]))
    fields = [("model", draw(st.sampled_from(["echo", "echo", "echo", "nobody"]))), draw(ROUTES[route])]
    proper = {"max_tokens": 5, "stream": draw(st.booleans()), "temperature": 0.5}
    fields += [(name, value) for name, value in proper.items() if draw(st.booleans())]
    fields += draw(st.lists(st.tuples(st.sampled_from(TOP) | names, values), max_size=3))
    return route, written(Pairs(draw(st.permutations(fields))), draw(st.booleans()))


class Errors(logging.Handler):
    """What was logged with an exception."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def emit(self, record):
        if record.exc_info:
            self.seen.append(self.format(record))


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    whole = echo()

    async def tolerant(server, writer, path, body):
        await whole(server, writer, path, {"stream": body.get("stream") is True})

    errors, root = Errors(), logging.getLogger()
    root.addHandler(errors)
    with Upstream(tolerant) as upstream:
        text = toml([("one", upstream.url, ["echo"], "")], server="body_parts = 1000")
        with Running(tmp_path_factory.mktemp("fuzz"), text) as running:
            running.upstream, running.errors = upstream, errors.seen
            running.spender = running.key("all:1000000000000", path="fuzz")
            running.target = running.admin("keys", {"path": "target", "limits": ["500"]})["key"]["id"]
            yield running
    root.removeHandler(errors)


def held(running):
    """Units that are held anywhere, once no request is running; the records are written."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        _, state = running.gateway.ledger.snapshot()
        found = sum(book.held for account in state.accounts.values() for book in account.books.values())
        if not found and not running.gateway.proxy.live:
            break
        time.sleep(0.002)
    running.do(running.gateway.records.flush())
    return found


def settings_of(examples):
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.hypothesis
@pytest.mark.parametrize("examples", EXAMPLES)
def test_no_body_fails_the_gateway_or_its_books(running, examples):
    reached = []

    @settings_of(examples)
    @given(body=bodies())
    def holds(body):
        route, content = body
        _, state = running.gateway.ledger.snapshot()
        before = state.accounts["fuzz"].books["all"].spent if "fuzz" in state.accounts else 0
        billed, calls = running.upstream.billed, running.upstream.calls
        status, _, said = running.call(f"/v1/{route}", content, running.spender)
        event(f"{status}")
        assert status < 500, said
        assert status < 400 or said["error"]["message"]
        assert held(running) == 0
        charged = running.spent("fuzz") - before if "fuzz" in running.gateway.ledger.snapshot()[1].accounts else 0
        (record,) = running.admin("requests?limit=1")["requests"]
        assert record["units"].get("all", 0) == charged
        assert charged >= running.upstream.billed - billed
        if not record["estimated"]:
            assert charged == running.upstream.billed - billed
        if running.upstream.calls == calls:
            assert charged == 0
        reached.append(running.upstream.calls > calls)
        assert running.errors == []

    holds()
    assert 0.1 < sum(reached) / len(reached) < 0.95  # of both kinds: that are sent on, and that are refused


FIELDS = ["path", "name", "limits", "per_user", "per_session", "per_tag", "per_model", "models", "max_input",
          "max_output", "max_reasoning", "expires", "id", "revoked", "amount", "overlap"]  # fmt: skip
amounts = st.sampled_from(
    ["$5/day", "500", "all:10k/hour", "requests:60/60s", "parallel:8", "$5", "24h", "0", "1e9m", "-1"]
)
of_keys = st.lists(
    st.tuples(
        st.sampled_from(FIELDS) | names,
        amounts | st.lists(amounts, max_size=3) | st.sampled_from(["acme", "a/b", "a//b", "/", "*"]) | values,
    ),
    max_size=5,
).map(Pairs)  # fmt: skip


@pytest.mark.hypothesis
@pytest.mark.parametrize("examples", EXAMPLES)
def test_no_body_fails_the_admin_api(running, examples):
    routes = [("POST", "keys"), ("PATCH", "keys/{id}"), ("POST", "keys/{id}/top-up"), ("POST", "keys/{id}/rotate")]
    done = []

    @settings_of(examples)
    @given(route=st.sampled_from(routes), fields=of_keys, escaped=st.booleans(), whole=st.booleans())
    def holds(route, fields, escaped, whole):
        method, path = route
        if whole and path == "keys":
            fields = Pairs([("path", "made"), *fields])
        elif whole:
            fields = Pairs([*fields, ("amount" if path.endswith("top-up") else "overlap", "1h"), ("limits", ["500"])])
        place = f"/admin/api/{path.format(id=running.target)}"
        status, _, said = running.call(place, written(fields, escaped), ADMIN, method)
        event(f"{method} {path} {status}")
        assert status < 500, said
        assert status < 400 or said["error"]["message"]
        # what was taken can be read again, as JSON and on the page
        assert running.call("/admin/api/keys")[0] == running.call("/admin/api/balances")[0] == 200
        assert running.call(f"/admin/api/keys/{running.target}")[0] == 200
        assert held(running) == 0
        assert running.errors == []
        done.append(status < 300)

    holds()
    assert any(done)
    assert not all(done)
