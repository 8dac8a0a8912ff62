"""Providers of other dialects, through LiteLLM: what they billed against what was charged, for every kind of client."""

from __future__ import annotations

import json

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn", "litellm"):
    pytest.importorskip(needed)

from helpers.dialects import DIALECTS, Said  # noqa: E402
from helpers.gateway_fixture import Running  # noqa: E402
from helpers.upstream import Upstream, error  # noqa: E402

CAP = 40
MODELS = dict.fromkeys(DIALECTS, "m") | {"bedrock": "anthropic.claude-sonnet-4-5-20250929-v1:0"}
CLIENTS = ("chat", "messages", "responses")
OWN = {("anthropic", "messages"), ("openai", "responses")}
"""What a provider speaks itself, so that it needs no driver."""
EVERY = pytest.mark.parametrize(("dialect", "client"), [(d, c) for d in DIALECTS for c in CLIENTS if (d, c) not in OWN])
SCHEMA = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}


def toml(upstreams, more=""):
    lines = ["[server]", "port = 0", "[ledger]", 'url = "memory:"', 'kinds = ["all", "input", "output", "cached"]']
    lines += ["[prices]", "shipped = false", "[logging]", "json = false", more]
    for name, url in upstreams.items():
        dialect = DIALECTS[name]
        lines += ["[[upstreams]]", f'name = "{name}"', 'driver = "litellm"', f'provider = "{name}"']
        lines += [f'base_url = "{url}"', 'key_env = "UPSTREAM_KEY"', "breaker = 0", dialect.more]
        lines += [
            "[[upstreams.models]]",
            f'name = "{name}-m"',
            f'upstream = "{MODELS[name]}"',
            f"max_output = {CAP}",
            "margin = 1",
        ]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def servers():
    found = {name: Upstream(error(500)) for name in DIALECTS}
    for server in found.values():
        server.__enter__()
    yield found
    for server in found.values():
        server.__exit__()


@pytest.fixture(scope="module")
def gate(servers, tmp_path_factory):
    urls = {name: server.url.removesuffix("/v1") for name, server in servers.items()}
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    with Running(tmp_path_factory.mktemp("gate"), toml(urls)) as running:
        yield running
    patch.undo()


class Case:
    """A key of its own at the gateway, and a provider that says something."""

    def __init__(self, gate, server, dialect, *limits):
        self.gate, self.server, self.dialect = gate, server, dialect
        self.path = f"case{len(gate.admin('keys')['keys'])}"
        self.key = gate.key(*limits, path=self.path)
        server.bills.clear()
        server.requests.clear()

    def ask(self, client, stream=False, tool=False, **more):
        about = {"name": "weather", "description": "of a place"}
        body = {"model": f"{self.dialect}-m", "stream": stream, **more}
        if client == "chat":
            body |= {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}
            body |= {"tools": [{"type": "function", "function": {**about, "parameters": SCHEMA}}]} if tool else {}
            path = "/v1/chat/completions"
        elif client == "messages":
            body |= {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}
            body |= {"tools": [{**about, "input_schema": SCHEMA}]} if tool else {}
            path = "/v1/messages"
        else:
            body |= {"input": "Hi", "max_output_tokens": 20}
            body |= {"tools": [{"type": "function", **about, "parameters": SCHEMA}]} if tool else {}
            path = "/v1/responses"
        status, self.headers, self.body = self.gate.call(path, body, self.key)
        self.record = self.gate.settled()[-1]
        return status

    def spent(self, kind="all"):
        return self.gate.spent(self.path, kind)

    @property
    def text(self):
        return self.body.decode() if isinstance(self.body, bytes) else json.dumps(self.body)


def case(gate, servers, dialect, said, *limits):
    server = servers[dialect]
    server.script = (DIALECTS[dialect].says(said),) if isinstance(said, Said) else (said,)
    return Case(gate, server, dialect, *limits)


@EVERY
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_what_is_billed_is_charged(gate, servers, dialect, client, stream):
    speaks = DIALECTS[dialect]
    said = Said(cached=2 if speaks.caches else 0, thought=4 if speaks.thinks else 0)
    one = case(gate, servers, dialect, said)
    assert one.ask(client, stream) == 200, one.text
    assert one.text.count("word") >= said.words
    assert one.server.billed == said.read + said.made
    assert (one.spent(), one.spent("input"), one.spent("output")) == (one.server.billed, said.read, said.made)
    assert one.spent("cached") == said.cached
    assert not one.record["estimated"]
    assert one.record["outcome"] == "ok"
    assert speaks.cap(one.server.bodies[0]) == 20


@EVERY
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_tools_are_called_in_the_clients_dialect(gate, servers, dialect, client, stream):
    one = case(gate, servers, dialect, Said(words=6, cached=0, tool=True))
    assert one.ask(client, stream, tool=True) == 200, one.text
    assert "weather" in one.text
    assert "Bern" in one.text
    assert one.spent() == one.server.billed == 15
    assert not one.record["estimated"]


@EVERY
@pytest.mark.parametrize("clean", [False, True], ids=["connection drops", "ends as if all was said"])
def test_a_stream_that_is_cut_is_never_charged_less_than_billed(gate, servers, dialect, client, clean):
    said = Said(words=8, cached=0, thought=4 if DIALECTS[dialect].thinks else 0, cut=3, clean=clean)
    one = case(gate, servers, dialect, said)
    assert one.ask(client, stream=True) == 200, one.text
    assert one.text.count("word ") == 3
    assert one.record["outcome"] == "cut"
    assert one.spent() >= one.server.billed
    for finish in ('"stop"', "end_turn", "message_stop", "response.completed", "[DONE]"):
        assert finish not in one.text


@EVERY
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(("status", "told", "charged"), [(429, 429, False), (500, 502, True), (400, 400, False)])
def test_errors_have_the_providers_status(gate, servers, dialect, client, stream, status, told, charged):
    one = case(gate, servers, dialect, error(status, [("retry-after", "7")], "no such luck"))
    assert one.ask(client, stream) == told
    assert "no such luck" in one.text
    assert "sk-upstream" not in one.text
    assert (one.spent() > 0) == charged
    assert len(one.server.requests) == (2 if charged else 1)  # the gateway's own retry, and none beside it
    if status == 429:
        assert one.headers["retry-after"] == "7"


@EVERY
def test_a_budget_that_is_spent_sends_nothing(gate, servers, dialect, client):
    one = case(gate, servers, dialect, Said(), "all:10")
    assert one.ask(client) == 402
    assert not one.server.requests
    assert one.spent() == 0
