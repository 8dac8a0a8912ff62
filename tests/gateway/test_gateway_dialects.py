"""Providers of other dialects, through LiteLLM: what they billed against what was charged, for every kind of client."""

from __future__ import annotations

import json

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn", "litellm"):
    pytest.importorskip(needed)

from helpers.dialects import DIALECTS, Said, events_of, frame_of, pieces  # noqa: E402
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
    if dialect in ("gemini", "anthropic"):  # their first events tell the input, and nothing tells what was cut off
        assert (one.spent("input"), one.spent("output")) == (said.read, 20)
    for finish in ('"stop"', "end_turn", "message_stop", "response.completed", "[DONE]"):
        assert finish not in one.text


def gemini_chunk(index, made, **end):
    counts = {"promptTokenCount": 9, "candidatesTokenCount": made, "totalTokenCount": 9 + made}
    candidate = {"index": index, "content": {"role": "model", "parts": [{"text": "word "}]}, **end}
    return events_of({"candidates": [candidate], "modelVersion": "m", "usageMetadata": counts})


def openai_chunk(index, **end):
    choice = {"index": index, "delta": {"content": "word "}, "finish_reason": None, **end}
    return events_of({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


HALF = {
    "gemini": [gemini_chunk(0, 1), gemini_chunk(1, 2), gemini_chunk(0, 3, finishReason="STOP"), gemini_chunk(1, 4)],
    "openai": [openai_chunk(0), openai_chunk(1), openai_chunk(0, finish_reason="stop"), openai_chunk(1)],
}


@pytest.mark.parametrize("dialect", HALF)
@pytest.mark.parametrize("clean", [False, True], ids=["connection drops", "ends as if all was said"])
def test_an_answer_of_two_choices_has_not_ended_with_the_first(gate, servers, dialect, clean):
    one = case(gate, servers, dialect, pieces(DIALECTS[dialect].kind, HALF[dialect], 9 + 2 * 20, clean))
    assert one.ask("chat", stream=True, n=2) == 200
    assert one.record["outcome"] == "cut"
    assert one.record["estimated"]
    assert one.spent() >= one.server.billed
    assert "[DONE]" not in one.text


SAID_WHY = {
    "openai": [openai_chunk(0), openai_chunk(0, finish_reason="stop")],
    "bedrock": [
        frame_of("messageStart", {"role": "assistant"}),
        frame_of("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "word "}}),
        frame_of("messageStop", {"stopReason": "end_turn"}),
    ],
}


@pytest.mark.parametrize("dialect", SAID_WHY)
def test_a_connection_that_drops_before_the_usage_cuts_the_stream(gate, servers, dialect):
    """The model may have thought unseen, which the usage would have told."""
    one = case(gate, servers, dialect, pieces(DIALECTS[dialect].kind, SAID_WHY[dialect], 9 + 20, False))
    assert one.ask("chat", stream=True) == 200
    assert one.record["outcome"] == "cut"
    assert one.spent("output") == 20
    assert "[DONE]" not in one.text


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


def checked(tmp_path, capsys, text):
    from budgeteer.cli import main

    path = tmp_path / "gateway.toml"
    path.write_text(text)
    return main(["serve", "--config", str(path), "--check"]), capsys.readouterr()


GOOGLE = """[ledger]
url = "memory:"
[[upstreams]]
name = "google"
driver = "litellm"
provider = "gemini"
"""
MODEL = """[[upstreams.models]]
name = "g"
"""


def test_check_says_what_the_driver_is(tmp_path, capsys):
    done, printed = checked(tmp_path, capsys, GOOGLE + MODEL)
    assert done == 0
    assert "upstream google at gemini's usual address: driver litellm 1." in printed.out
    assert "provider gemini; it was not called" in printed.out


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('dialect = "openai"\n', "line 7: upstreams[0].dialect does not go with driver"),
        ('media_hosts = ["*"]\n', "line 7: upstreams[0].media_hosts does not go with driver"),
        ("bills_cost = true\n", "line 7: upstreams[0].bills_cost does not go with driver"),
        ('[upstreams.provider_options]\napi_base = "x"\n', "provider_options.api_base"),
    ],
)
def test_settings_that_do_not_go_with_a_driver_are_named(tmp_path, capsys, lines, told):
    done, printed = checked(tmp_path, capsys, GOOGLE + lines + MODEL)
    assert done != 0
    assert told in printed.err


@pytest.mark.parametrize("field", ["fallbacks", "api_base", "mock_response", "num_retries", "top_k"])
def test_settings_of_the_translator_are_no_fields_of_requests(gate, servers, field):
    one = case(gate, servers, "gemini", Said())
    assert one.ask("chat", **{field: "flex"}) == 400
    assert not one.server.requests
    assert not one.record["units"]


def test_a_request_whose_cap_is_lost_in_translation_is_not_sent(gate, servers, monkeypatch):
    from budgeteer.gateway.translate import caller

    kept = caller.fields_of
    monkeypatch.setattr(caller, "fields_of", lambda *a: {k: v for k, v in kept(*a).items() if k != "max_tokens"})
    one = case(gate, servers, "gemini", Said())
    assert one.ask("chat") == 400
    assert "does not keep the cap of 20 output tokens" in one.text
    assert not one.server.requests
    assert one.spent("all") == 0


@EVERY
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_usage_that_was_not_told_is_not_made_up(gate, servers, dialect, client, stream):
    """LiteLLM counts by itself then, or gives up; the charge is on the safe side, and says that it is estimated."""
    one = case(gate, servers, dialect, Said(cached=0, tells=False))
    one.ask(client, stream)
    assert one.spent() >= one.server.billed
    assert one.record["estimated"]


def test_what_was_written_for_an_hour_is_told_apart():
    """It has a dearer price."""
    from budgeteer.core.usage import Usage
    from budgeteer.gateway.translate.shapes import whole
    from budgeteer.gateway.translate.witness import Witness

    times = {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 4}
    details = {"cached_tokens": 2, "cache_creation_tokens": 5, "cache_creation_token_details": times}
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, "prompt_tokens_details": details}
    witness = Witness(False)
    witness.told = True
    found = whole("chat", {"usage": {**usage, "cache_creation_input_tokens": 5, "cost": 1.0}}, witness)
    read = Usage.from_chat(found["usage"])
    assert (read.input, read.cached, read.written, read.written_long, read.output) == (9, 2, 5, 4, 3)
    assert "cost" not in found["usage"]


def test_the_real_clients_of_both_dialects(gate, servers):
    openai, anthropic = pytest.importorskip("openai"), pytest.importorskip("anthropic")
    one = case(gate, servers, "anthropic", Said())
    claude = openai.OpenAI(base_url=gate.url, api_key=one.key, max_retries=0)
    hi = [{"role": "user", "content": "Hi"}]
    chat = claude.chat.completions.create(model="anthropic-m", messages=hi, max_tokens=20)
    assert chat.choices[0].message.content == "word word word "
    assert (chat.usage.prompt_tokens, chat.usage.completion_tokens) == (9, 3)
    assert chat.usage.prompt_tokens_details.cached_tokens == 2
    two = case(gate, servers, "openai", Said(cut=None))
    gpt = anthropic.Anthropic(base_url=gate.root, api_key=two.key, max_retries=0)
    with gpt.messages.stream(model="openai-m", messages=hi, max_tokens=20) as stream:
        assert stream.get_final_text() == "word word word "
        assert stream.get_final_message().usage.output_tokens == 3
    three = case(gate, servers, "openai", Said(words=8, cut=3))
    cut = anthropic.Anthropic(base_url=gate.root, api_key=three.key, max_retries=0)
    with pytest.raises(anthropic.APIError), cut.messages.stream(model="openai-m", messages=hi, max_tokens=20) as stream:
        stream.get_final_text()
    gate.settled()
    assert (one.spent(), two.spent()) == (12, 12)
    assert three.spent() >= three.server.billed


def test_an_input_of_0_that_a_translator_writes_first_is_no_usage():
    """A cut stream of a request whose tokens its text does not show would cost no input else."""
    from budgeteer.metering.call import Metering
    from budgeteer.metering.reading import Reading

    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    body = {"messages": [{"role": "user", "content": [picture]}], "max_tokens": 20, "stream": True}
    reading = Reading("messages", body, Metering(None, ("all",), None), False)
    start = {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 0, "output_tokens": 0}}}
    reading.event(json.dumps(start).encode())
    reading.event(b'{"type": "content_block_delta", "index": 0, "delta": {"text": "word"}}')
    assert reading.at_end().usage is None


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("provider", ["gemini", "bedrock"])
def test_a_key_that_the_translator_does_not_find_costs_nothing(
    tmp_path, servers, monkeypatch, provider, stream, caplog
):
    """Its client learns neither why nor where the gateway's code lies."""
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    text = toml({provider: servers[provider].url.removesuffix("/v1")}).replace('key_env = "UPSTREAM_KEY"', "")
    servers[provider].requests.clear()
    with Running(tmp_path, text) as running:
        body = {"model": f"{provider}-m", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
        status, _, found = running.call("/v1/chat/completions", body, running.key("9000"))
        (record,) = running.settled(1)
    assert (status, found["error"]["code"]) == (502, "upstream_refused")
    assert "Traceback" not in str(found)
    assert record["units"]["all"] == 0
    assert not servers[provider].requests
    assert "check its base_url and key: {" in caplog.text
