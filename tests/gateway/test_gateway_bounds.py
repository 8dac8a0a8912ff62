"""What the gateway reserves for a request: near what it costs, never below it, and nothing that has no bound."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.gateway import config  # noqa: E402
from budgeteer.gateway import counting as counting_of  # noqa: E402
from budgeteer.gateway.ask import Ask  # noqa: E402
from budgeteer.gateway.prepare import prepare  # noqa: E402
from budgeteer.gateway.refusal import Refused  # noqa: E402
from budgeteer.gateway.server import check  # noqa: E402
from budgeteer.metering.call import Metering  # noqa: E402
from budgeteer.prices import user  # noqa: E402
from helpers.gateway_fixture import Running, toml  # noqa: E402
from helpers.requests import KEY, METERING, MODEL  # noqa: E402
from helpers.upstream import Upstream, answer, echo, error, hang_up  # noqa: E402

DOLLAR = 10**12
HI = [{"role": "user", "content": "Hi"}]
PRICES = """
[models.claude]
input = 3
output = 15
cached = 0.3
written = 3.75
written_long = 6
[[models.claude.tiers]]
above = 200_000
input = 6
output = 22.5
cached = 0.6
written = 7.5
written_long = 12
[models.claude.fees]
web_search = 0.01
[models.gpt]
input = 2
output = 8
[models.gpt.fees]
web_search = 0.01
file_search = 0.0025
"""
"""Claude's are those of Sonnet 4.5."""
COUNT = "/v1/messages/count_tokens"


def counting(found):
    """An upstream that counts tokens in this way: a number, or a step; what it then answers has 7 tokens of input, or
    10,000 where the cap is 7."""
    usual = echo()

    async def step(server, writer, path, body):
        if path == COUNT:
            if callable(found):
                return await found(server, writer, path, body)
            return await answer(writer, 200, {"input_tokens": found})
        if body["max_tokens"] == 7:
            return await told("messages", 0, 10_000)(server, writer, path, body)
        return await usual(server, writer, path, body)

    return step


def told(operation, uses, read=100):
    """An answer that tells of billed uses."""

    async def step(server, writer, path, body):
        about = {"model": "claude" if operation == "messages" else "gpt"}
        if operation == "messages":
            usage = {"input_tokens": read, "output_tokens": 10, "server_tool_use": {"web_search_requests": uses}}
            return await answer(writer, 200, {**about, "type": "message", "content": [], "usage": usage})
        items = [{"type": "web_search_call", "action": {"type": "search"}}] * uses
        usage = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
        return await answer(writer, 200, {**about, "object": "response", "output": items, "usage": usage})

    return step


def running(folder, upstream, models=("claude",), more="", of_model="", cap=50):
    (folder / "prices.toml").write_text(PRICES)
    text = toml([("one", upstream.url, models, more)], kinds='["all", "money"]', cap=cap)
    text = text.replace("shipped = false", 'shipped = false\nfiles = ["prices.toml"]')
    return Running(folder, text.replace("margin = 1", f"margin = 1\n{of_model}"))


def png(width, height):
    head = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes(9)
    return base64.b64encode(head + b"\0\0\x10\0IDAT" + bytes(3000)).decode()


def reserved(gateway, body, route="messages", kind="money"):
    """What was reserved for a request that was answered."""
    before = len(gateway.settled())
    status, _, found = gateway.call(f"/v1/{route}", body, gateway.key("money:1000000000000000", path="acme"))
    assert status == 200, found
    return gateway.settled(before + 1)[-1]["reserved"][kind]


def test_a_refusal_says_which_setting_bounds_a_picture(tmp_path):
    far = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    asked = {"model": "claude", "max_tokens": 50, "messages": [{"role": "user", "content": [far]}]}
    with Upstream() as upstream, running(tmp_path, upstream, more='media_hosts = ["example.com"]') as gateway:
        status, _, found = gateway.call("/v1/messages", asked, gateway.key("all:20000", path="acme"))
        assert status == 402, found
        assert "a picture counts as 48,169 tokens" in str(found)
        assert "set image of claude in the gateway's file" in str(found)
        status, _, found = gateway.call("/v1/messages", {**asked, "messages": HI}, gateway.key("all:10", path="other"))
        assert (status, "picture" in str(found)) == (402, False)


# a large prompt


TEXT = ("The quick brown fox jumps over the lazy dog and runs. " * 12_000)[:600_000]
LARGE = {"model": "claude", "max_tokens": 50, "messages": [{"role": "user", "content": TEXT}]}


def test_a_large_prompt_is_reserved_at_what_it_can_cost(tmp_path):
    """600 KB for Claude: about 150,000 tokens, which cost $0.45; $14.41 were reserved."""
    with Upstream(claude=counting(150_000)) as upstream, running(tmp_path, upstream) as gateway:
        by_bytes = reserved(gateway, LARGE)
        assert 3.6 * DOLLAR < by_bytes < 3.61 * DOLLAR
        cached = [{"type": "text", "text": TEXT, "cache_control": {"type": "ephemeral"}}]
        assert reserved(gateway, {**LARGE, "messages": [{"role": "user", "content": cached}]}) > 4.5 * DOLLAR
        assert all(path != COUNT for path, _ in upstream.requests)
    with (
        Upstream(claude=counting(150_000)) as upstream,
        running(tmp_path, upstream, more="count_tokens = true") as again,
    ):
        assert 0.45 * DOLLAR < reserved(again, LARGE) < 0.48 * DOLLAR
        assert [path for path, _ in upstream.requests] == [COUNT, "/v1/messages"]
        assert upstream.bodies[0] == {"model": "claude", "messages": LARGE["messages"]}


async def endless(server, writer, path, body):
    """A count in an answer that is far too long."""
    return await answer(writer, 200, {"input_tokens": 150_000, "more": "x" * 100_000})


async def elsewhere(server, writer, path, body):
    """A count beside a redirect."""
    return await answer(writer, 302, {"input_tokens": 150_000})


@pytest.mark.parametrize(
    "found",
    [error(500), error(404), hang_up, "many", -1, None, 3, 10**30, 1.5e5, "150000", True, endless, elsewhere],
    ids=lambda found: str(found)[:20],
)
def test_a_count_that_cannot_be_believed_leaves_the_bytes(tmp_path, found):
    with (
        Upstream(claude=counting(found)) as upstream,
        running(tmp_path, upstream, more="count_tokens = true") as gateway,
    ):
        assert 3.6 * DOLLAR < reserved(gateway, LARGE) < 3.61 * DOLLAR


def test_not_every_request_waits_for_a_count_that_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr(counting_of, "_SECONDS", 0.1)

    async def hangs(server, writer, path, body):
        await asyncio.sleep(60)

    with (
        Upstream(claude=counting(hangs)) as upstream,
        running(tmp_path, upstream, more="count_tokens = true") as gateway,
    ):
        for _ in range(3):
            assert 3.6 * DOLLAR < reserved(gateway, LARGE) < 3.61 * DOLLAR
        assert [path for path, _ in upstream.requests].count(COUNT) == 1


@pytest.mark.parametrize(("found", "said"), [(8, "ok      "), (error(404), "FAILED  "), ("many", "FAILED  ")])
def test_the_check_says_whether_an_upstream_counts(tmp_path, found, said):
    with (
        Upstream(claude=counting(found)) as upstream,
        running(tmp_path, upstream, more="count_tokens = true") as gateway,
    ):
        lines = []
        assert gateway.do(check(gateway.config, lines.append)) == (said == "ok      ")
        (line,) = [line for line in lines if "count_tokens" in line]
        assert line.startswith(said)


def test_what_is_small_or_spent_or_reaches_inside_is_not_counted(tmp_path):
    with Upstream(claude=counting(9)) as upstream, running(tmp_path, upstream, more="count_tokens = true") as gateway:
        reserved(gateway, {"model": "claude", "max_tokens": 5, "messages": HI})
        reserved(gateway, {**LARGE, "messages": [{"role": "user", "content": "x" * 90_000}]}, "chat/completions")
        source = {"type": "url", "url": "http://169.254.169.254/latest"}
        inside = [{"role": "user", "content": [{"type": "document", "source": source}]}]
        key = gateway.key("all:100", path="spent")
        found = gateway.call("/v1/messages", {"model": "claude", "max_tokens": 5, "messages": inside}, key)
        assert (found[0], "would call '169.254.169.254'" in found[2]["error"]["message"]) == (400, True)
        key = gateway.key("all:200", path="nothing")  # of which the first answer uses more
        assert gateway.call("/v1/messages", {"model": "claude", "max_tokens": 7, "messages": HI}, key)[0] == 200
        gateway.settled(4)
        assert gateway.call("/v1/messages", LARGE, key)[0] == 402
        assert all(path != COUNT for path, _ in upstream.requests)


def test_a_document_that_is_not_text_is_bounded_by_its_count(tmp_path):
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "A" * 999}}
    body = {"model": "claude", "max_tokens": 50, "messages": [{"role": "user", "content": [pdf]}]}
    with (
        Upstream(claude=counting(7_000)) as upstream,
        running(tmp_path, upstream, more="count_tokens = true") as gateway,
    ):
        assert reserved(gateway, body, kind="all") == 7_350 + 10 + 50
        search = {**body, "tools": [{"type": "web_search_20250305", "name": "s", "max_uses": 1}]}
        found = gateway.call("/v1/messages", search, gateway.key("all:999999", path="s"))
        assert (found[0], "give max_input" in found[2]["error"]["message"]) == (400, True)


# pictures


def test_a_picture_is_reserved_by_its_size(tmp_path):
    """1,270 tokens of Claude's, $0.0038; $0.58 were reserved."""
    source = {"type": "base64", "media_type": "image/png", "data": png(1000, 970)}
    body = {"model": "claude", "max_tokens": 1, "messages": [{"role": "user", "content": [
        {"type": "image", "source": source}, {"type": "text", "text": "What is this?"}]}]}  # fmt: skip
    (tmp_path / "prices.toml").write_text(PRICES)
    metering = Metering(None, ("money",), user.load(tmp_path / "prices.toml"))

    def dollars(url):
        (tmp_path / "gateway.toml").write_text(toml([("one", url, ["claude"], 'media_hosts = ["*"]')]))
        (upstream,) = config.load(tmp_path / "gateway.toml", {}).upstreams
        ask = Ask("messages", json.dumps(body).encode(), KEY)
        return prepare(ask, upstream.models[0], metering, "anthropic").planned.amounts["money"] / DOLLAR

    assert 0.0038 < dollars("https://api.anthropic.com/v1") < 0.0055
    assert dollars("http://127.0.0.1:9/v1") > 0.144  # a server inside may give the name to any model
    source.update(type="url", url="https://example.com/" + "x" * 900)
    del source["data"]
    assert dollars("https://api.anthropic.com/v1") > 0.144


# a tokenizer


def test_a_tokenizer_of_the_file_bounds_its_models(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0}, unk_token="?"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "words.json"))
    body = {"model": "gpt", "max_tokens": 5, "messages": [{"role": "user", "content": "word " * 9_000}]}
    with (
        Upstream(gpt=echo()) as upstream,
        running(tmp_path, upstream, ["gpt"], of_model='tokenizer = "words.json"') as gateway,
    ):
        assert 9_000 < reserved(gateway, body, "chat/completions", "all") < 9_100


@pytest.mark.parametrize(
    ("more", "of_model", "message"),
    [
        ("", 'tokenizer = "no-such.json"', "tokenizer is 'no-such.json': .* no tokenizer that can be read"),
        ("", 'tokenizer = "no-such"', "tokenizer is 'no-such': "),
        ("", "tools_margin = 0.5", "tools_margin is 0.5"),
        ('dialect = "openai"\ncount_tokens = true', "", "count_tokens is true, but only Anthropic's"),
    ],
)
def test_what_the_file_cannot_have_is_said_with_its_line(tmp_path, more, of_model, message):
    pytest.importorskip("tiktoken")
    text = toml([("one", "http://127.0.0.1:1/v1", ["m"], more)]).replace("margin = 1", f"margin = 1\n{of_model}")
    text = text.replace('dialect = "both"\ndialect', "dialect")
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=rf"line \d+.*{message}"):
        config.load(path, {})


def test_tools_have_a_margin_where_claude_may_read_them(tmp_path):
    for dialect, margin in (("openai", 1), ("anthropic", 2), ("both", 2)):
        text = toml([("one", "https://example.com/v1", ["m"], "")]).replace('"both"', f'"{dialect}"')
        (tmp_path / "gateway.toml").write_text(text)
        (upstream,) = config.load(tmp_path / "gateway.toml", {}).upstreams
        assert (upstream.models[0].bounds.tools_margin, upstream.models[0].bounds.margin) == (margin, 1)


# what is asked


def ready(body, route="chat/completions", model=MODEL):
    return prepare(Ask(route, json.dumps({"model": "m", **body}).encode(), KEY), model, METERING, "openai")


@pytest.mark.parametrize(
    "body",
    [
        {"web_search_options": {}}, {"search_parameters": {}}, {"tools": {"web_search": {}}},
        {"tools": [{"type": "shell"}]}, {"enable_search": True}, {"web_search": {"enable": True}},
    ],
)  # fmt: skip
def test_searches_and_runs_without_a_bound_are_refused(body):
    """Also where the file lets the field through."""
    allowed = replace(MODEL, fields=frozenset(["enable_search", "web_search", "tools.shell"]))
    with pytest.raises(Refused) as refused:
        ready({"messages": HI, "max_tokens": 5, **body}, model=allowed)
    assert refused.value.code == ("invalid_request" if isinstance(body.get("tools"), dict) else "not_bounded")


@pytest.mark.parametrize(
    ("provider", "passes"),
    [
        ({"data_collection": "deny"}, True),
        ({"zdr": True, "require_parameters": True, "allow_fallbacks": False}, True),
        ({"max_price": {"prompt": 1}}, True),
        ({}, True),
        ({"only": ["dear"]}, False),
        ({"order": ["dear"]}, False),
        ({"sort": "throughput"}, False),
        ({"data_collection": "deny", "order": ["dear"]}, False),
        ({"zdr": {"order": ["dear"]}}, False),
        ("deny", False),
    ],
)
def test_what_only_takes_providers_out_passes(provider, passes):
    body = {"messages": HI, "max_tokens": 5, "provider": provider}
    if passes:
        assert json.loads(ready(body).content)["provider"] == provider
        return
    with pytest.raises(Refused, match="provider can have another") as refused:
        ready(body)
    assert refused.value.code == "not_bounded"


@pytest.mark.parametrize("body", [{"plugins": {}}, {"plugins": [{}]}, {"models": {}}, {"background": {}}])
def test_an_empty_object_that_calls_something_else_is_refused(body):
    with pytest.raises(Refused):
        ready({"messages": HI, "max_tokens": 5, **body})


@pytest.mark.parametrize(
    "body",
    [
        {"thinking": {"Budget_Tokens": 9}}, {"nvext": {"MAX_thinking_tokens": 9}},
        {"chat_template_kwargs": {"Thinking_Budget": 9}},
    ],
)  # fmt: skip
def test_other_spellings_of_what_is_read_in_objects_are_refused(body):
    with pytest.raises(Refused, match="some servers read"):
        ready({"messages": HI, "max_tokens": 5, **body})


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"custom_params": {"x": 1}}, "custom_params.x"), ({"nvext": {"annotations": []}}, "nvext.annotations"),
        ({"nvext": {"max_thinking_tokens": {"a": 1}}}, "nvext.max_thinking_tokens"),
    ],
)  # fmt: skip
def test_other_fields_of_a_servers_own_objects_are_refused(body, name):
    with pytest.raises(Refused, match=name) as refused:
        ready({"messages": HI, "max_tokens": 5, **body})
    assert refused.value.code == "field_not_allowed"


# fees


@pytest.mark.parametrize(
    ("route", "body", "uses"),
    [
        ("messages", {"messages": HI, "max_tokens": 10,
                      "tools": [{"type": "web_search_20250305", "name": "s", "max_uses": 5}]}, 5),
        ("responses", {"input": "Hi", "max_output_tokens": 10, "max_tool_calls": 5,
                       "tools": [{"type": "web_search"}]}, 5),
    ],
)  # fmt: skip
def test_fees_are_reserved_by_the_limit_and_charged_by_the_count(tmp_path, route, body, uses):
    model, read, made = ("claude", 3, 15) if route == "messages" else ("gpt", 2, 8)
    body = {"model": model, **body}
    with (
        Upstream(**{model: told(route, 2)}) as upstream,
        running(tmp_path, upstream, [model], of_model="max_input = 5000") as gateway,
    ):
        assert reserved(gateway, body, route) == (5_010 * read + 10 * made) * 10**6 + uses * DOLLAR // 100
        assert gateway.spent("acme", "money") == (100 * read + 10 * made) * 10**6 + 2 * DOLLAR // 100
        key = gateway.key("money:1000000000000000", path="u")
        for name in ("max_tool_calls", "max_uses"):  # without a limit
            endless = {k: v for k, v in body.items() if k != name}
            endless["tools"] = [{k: v for k, v in tool.items() if k != name} for tool in endless["tools"]]
            if endless == body:
                continue
            found = gateway.call(f"/v1/{route}", endless, key)
            assert found[0] == 400
            assert "give the tool max_uses" in found[2]["error"]["message"]


def test_a_use_whose_fee_nobody_knows_is_refused(tmp_path):
    body = {"model": "claude", "messages": HI, "max_tokens": 5, "tools": [{"type": "code_execution_20250825"}]}
    more = 'allow_fields = ["tools.code_execution_20250825"]'
    with (
        Upstream(claude=echo()) as upstream,
        running(tmp_path, upstream, more=more, of_model="max_input = 5000") as gateway,
    ):
        found = gateway.call("/v1/messages", body, gateway.key("money:1000000000000000", path="u"))
        assert found[0] == 400
        assert "fee of code_session" in found[2]["error"]["message"]


# real clients


def test_the_clients_own_tools_of_the_anthropic_client(tmp_path):
    anthropic = pytest.importorskip("anthropic")
    with Upstream(claude=echo()) as upstream, running(tmp_path, upstream) as gateway:
        client = anthropic.Anthropic(base_url=gateway.root, api_key=gateway.key("money:1000000000000000", path="a"))
        tools = [
            {"type": "bash_20250124", "name": "bash"},
            {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
            {"type": "memory_20250818", "name": "memory"},
        ]
        document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "A text."}}
        said = [{"role": "user", "content": [document, {"type": "text", "text": "Sum it up"}]}]
        found = client.messages.create(model="claude", max_tokens=9, messages=said, tools=tools)
        assert found.content[0].text.startswith("word")
        assert upstream.bodies[0]["tools"] == tools
        (record,) = gateway.settled(1)
        assert 2_000 < record["reserved"]["all"] < 8_000


def test_the_clients_own_tools_of_the_openai_client(tmp_path):
    openai = pytest.importorskip("openai")
    with Upstream(gpt=echo()) as upstream, running(tmp_path, upstream, ["gpt"]) as gateway:
        client = openai.OpenAI(base_url=gateway.url, api_key=gateway.key("money:1000000000000000", path="a"))
        tools = [{"type": "shell", "environment": {"type": "local"}}, {"type": "apply_patch"}]
        outputs = [
            {"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}, "status": "completed"},
            {"type": "shell_call_output", "call_id": "c",
             "output": [{"stdout": "a", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]},
        ]  # fmt: skip
        found = client.responses.create(model="gpt", max_output_tokens=9, input=outputs, tools=tools)
        assert found.output_text.startswith("word")
        assert upstream.bodies[0]["tools"] == tools
