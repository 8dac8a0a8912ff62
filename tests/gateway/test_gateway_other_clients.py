"""More real clients through the gateway: OpenAI's and Vercel's SDKs of Node, Pydantic AI, the OpenAI Agents SDK."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

from helpers.gateway_fixture import Running, toml  # noqa: E402
from helpers.stored import Responses  # noqa: E402
from helpers.upstream import Upstream, answer, begin, echo, end, event, usage  # noqa: E402


async def tool(server, writer, path, body):
    """Asks for a tool first, and answers once it has the result."""
    asked = any(message.get("role") == "tool" for message in body["messages"])
    base = {"id": "c", "created": 1, "model": "echo-1"}
    call = {"id": "call1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}
    said = {"role": "assistant", "content": "It is 5."} if asked else {
        "role": "assistant", "content": None, "tool_calls": [call]}  # fmt: skip
    finish = "stop" if asked else "tool_calls"
    server.billed += 12
    if not body.get("stream"):
        choice = {"index": 0, "finish_reason": finish, "message": said}
        return await answer(
            writer, 200, {**base, "object": "chat.completion", "choices": [choice], "usage": usage(7, 5)}
        )
    await begin(writer)
    delta = {**said, "tool_calls": [{"index": 0, **call}]} if not asked else said
    chunk = {**base, "object": "chat.completion.chunk"}
    await event(writer, {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    await event(writer, {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        await event(writer, {**chunk, "choices": [], "usage": usage(7, 5)})
    await event(writer, "[DONE]")
    return await end(writer)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with (
        Upstream(cut=echo(cut_after=2), slow=echo(words=40, pause=0.1), tool=tool) as upstream,
        Running(
            tmp_path_factory.mktemp("clients"),
            toml([("one", upstream.url, ["echo", "cut", "slow", "tool"], "")], server="retries = 0"),
        ) as running,
    ):
        running.upstream = upstream
        yield running


def of(running, path):
    """Records of an account and below."""
    return [one for one in running.settled() if one["path"].startswith(f"{path}/")]


# Node


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A folder with the packages of npm that the scripts need."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("no node and npm in PATH")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    try:
        got = subprocess.run(
            ["npm", "install", "--silent", "--no-audit", "--no-fund", "openai@6", "ai@6", "@ai-sdk/openai@3", "zod@4"],
            cwd=folder, timeout=120, capture_output=True, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.skip("npm install did not end within two minutes")
    if got.returncode:
        pytest.skip(f"npm install failed: {got.stderr[-200:]}")
    for name in ("openai_sdk.mjs", "ai_sdk.mjs"):
        shutil.copy(Path(__file__).parents[1] / "helpers" / name, folder)
    return folder


def test_the_node_sdk(running, node):
    key, poor = running.key("all:90000", path="node"), running.key("all:20", path="poor")
    got = subprocess.run(
        ["node", "openai_sdk.mjs", running.url, key, poor], cwd=node, timeout=120, capture_output=True, text=True
    )
    assert got.returncode == 0, got.stderr
    found = json.loads(got.stdout)
    assert found["chat"] == ["word word word word word", 12]
    assert found["stream"][:5] == ["word "] * 5
    assert found["usage"]["total_tokens"] == 12
    assert found["response"] == "word word word word word"
    assert found["events"][-1] == "response.completed"
    assert found["events"].count("response.output_text.delta") == 5
    assert {"echo", "cut"} <= set(found["models"])
    assert found["refusal"] == ["APIError", 402, "budget_exceeded", 20]
    assert "the stream was cut" in found["cut"]
    assert found["aborted"] is True
    assert len(of(running, "poor")) == 1  # maxRetries 4, and asked once
    records = of(running, "node")
    assert [one["outcome"] for one in records] == ["ok"] * 5 + ["cut", "left"]
    assert sum(one["units"]["all"] for one in records[:5]) == 60
    assert running.spent("node") == sum(one["units"]["all"] for one in records)


def test_the_ai_sdk_with_its_default_model(node, tmp_path):
    """Three turns with tools, the second one streamed: it names what it was answered by the ids of items."""
    with (
        Upstream(**{"gpt-5-mini": Responses()}) as upstream,
        Running(tmp_path, toml([("one", upstream.url, ["gpt-5-mini"], "")], cap=5000)) as running,
    ):
        key = running.key("all:1000000")
        got = subprocess.run(
            ["node", "ai_sdk.mjs", running.url, key], cwd=node, timeout=120, capture_output=True, text=True
        )
        assert got.returncode == 0, got.stderr
        found = json.loads(got.stdout)
        assert found["steps"] == [3, 3, 3]
        assert found["texts"] == ["It is done. " * 20] * 3
        records = running.settled(9)
        assert [one["outcome"] for one in records] == ["ok"] * 9
        assert [one["overshoot"] for one in records] == [{}] * 9
        assert running.spent() == upstream.billed
        referred = [part for part in upstream.bodies[-1]["input"] if part.get("type") == "item_reference"]
        assert len(referred) == 8 + 2  # the thoughts of each answer before, and the two messages


# Pydantic AI


def test_pydantic_ai(running):
    """An agent with a tool, whole and streamed: every model call is on the bill, and a spent budget ends it at once."""
    pytest.importorskip("pydantic_ai")
    from pydantic_ai import Agent
    from pydantic_ai.exceptions import ModelHTTPError
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    def agent(key, model="tool"):
        found = Agent(OpenAIChatModel(model, provider=OpenAIProvider(base_url=running.url, api_key=key)))

        @found.tool_plain
        def add(a: int, b: int) -> int:
            return a + b

        return found

    one = agent(running.key("all:90000", path="pydantic"))
    got = one.run_sync("What is 2 + 3?")
    assert got.output == "It is 5."
    with_stream = one.run_stream_sync("What is 2 + 3?")
    assert with_stream.get_output() == "It is 5."
    records = of(running, "pydantic")
    assert [record["outcome"] for record in records] == ["ok"] * 4
    assert [record["units"]["all"] for record in records] == [12] * 4
    assert running.spent("pydantic") == 48
    with pytest.raises(ModelHTTPError) as refused:
        agent(running.key("all:20", path="pydantic-poor")).run_sync("What is 2 + 3?")
    assert refused.value.status_code == 402
    assert len(of(running, "pydantic-poor")) == 1


# the OpenAI Agents SDK


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_the_openai_agents_sdk(running, api):
    agents = pytest.importorskip("agents")
    openai = pytest.importorskip("openai")
    agents.set_tracing_disabled(True)

    def model(key):
        client = openai.AsyncOpenAI(base_url=running.url, api_key=key)
        if api == "chat":
            return agents.OpenAIChatCompletionsModel("tool", client)
        return agents.OpenAIResponsesModel("echo", client)

    @agents.function_tool
    def add(a: int, b: int) -> int:
        """The sum of two numbers."""
        return a + b

    path = f"agents-{api}"
    agent = agents.Agent("adder", tools=[add], model=model(running.key("all:90000", path=path)))
    got = agents.Runner.run_sync(agent, "What is 2 + 3?")
    assert got.final_output == ("It is 5." if api == "chat" else "word word word word word")
    records = of(running, path)
    assert [record["outcome"] for record in records] == ["ok"] * (2 if api == "chat" else 1)
    assert running.spent(path) == 12 * len(records)
    assert got.context_wrapper.usage.total_tokens == 12 * len(records)
    poor = agents.Agent("adder", tools=[add], model=model(running.key("all:20", path=f"{path}-poor")))
    with pytest.raises(openai.APIStatusError) as refused:
        agents.Runner.run_sync(poor, "What is 2 + 3?")
    assert refused.value.status_code == 402
    assert len(of(running, f"{path}-poor")) == 1
