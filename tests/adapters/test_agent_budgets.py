"""Agents within a budget, by the frameworks that are installed here, before a scripted model; and tools of MCP servers.

All twelve scenarios, with all frameworks: ``make test-frameworks``.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from budgeteer.core.errors import BudgetExceeded, InvalidInput
from budgeteer.metering.agents import AgentBudget
from budgeteer.metering.estimate import Bounds
from helpers.brain import MODEL, Brain
from helpers.frameworks import fault
from helpers.upstream import Upstream

ROOT = Path(__file__).parents[2]
NEEDS = {"openai-agents": "agents", "pydantic-ai": "pydantic_ai"}


@pytest.fixture
def provider():
    with Upstream(Brain()) as provider:
        yield provider


@pytest.fixture(params=NEEDS)
def framework(request):
    return request.param


@pytest.fixture
def make(framework, provider, monkeypatch):
    """Makes agents of a framework, as its program in tests/frameworks does."""
    pytest.importorskip(NEEDS[framework])
    pytest.importorskip("openai")
    monkeypatch.setenv("BASE_URL", provider.url)
    monkeypatch.setenv("MODEL", MODEL)
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "frameworks"))
    monkeypatch.delitem(sys.modules, "scenarios", raising=False)
    spec = importlib.util.spec_from_file_location("program", ROOT / "tests/frameworks" / framework / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make


@pytest.mark.parametrize("scenario", ["stream", "fan-out", "megabytes", "aborted child", "recursion"])
def test_an_agent_stays_within_its_budget(framework, make, provider, scenario, monkeypatch):
    import scenarios

    monkeypatch.setattr(scenarios, "TOKENS", 8_000)
    row = scenarios.do(make, scenario, "budget")
    assert fault({**row, "framework": framework, "scenario": scenario, "billed": provider.billed}) == ""
    assert row["charged"] == provider.billed <= 8_000


def search(query: str) -> str:
    """Search for something.

    Args:
        query: what to search for.
    """
    return "nothing yet"


def test_the_last_answer_is_asked_without_tools_and_told_why(make, provider):
    budget = AgentBudget.parse("100k, turns:3, tool:search:1", bounds=Bounds(overhead=64, max_output=96))
    assert asyncio.run(make("agent", [search], budget=budget)("do: search")) == "Done with 2 findings."
    assert [bool(body.get("tools")) for body in provider.bodies] == [True, True, False]
    last = provider.bodies[-1]["messages"]
    assert "budget" in json.dumps(last[-1])
    assert "tool:search: 0 of 1 left" in json.dumps(last[-2])
    assert budget.spent["turns"] == 3
    assert asyncio.run(make("agent", [search], budget=budget)("do: search")).startswith("[stopped: the budget")
    assert len(provider.bodies) == 3


def test_an_agent_whose_answer_is_an_object_cannot_end_with_a_text(provider):
    pytest.importorskip("pydantic_ai")
    import agents
    from openai import AsyncOpenAI
    from pydantic import BaseModel
    from pydantic_ai import Agent, PromptedOutput
    from pydantic_ai.models.test import TestModel

    from budgeteer.adapters.openai_agents_run import spending
    from budgeteer.adapters.pydantic_ai_run import Spending

    class Person(BaseModel):
        name: str

    budget = AgentBudget.parse("100")
    assistant = Agent(TestModel(), output_type=Person, capabilities=[Spending(budget)])
    writer = Agent(TestModel(), output_type=PromptedOutput(Person), capabilities=[Spending(budget)])

    async def pydantic_stream():
        async with assistant.run_stream("Hi") as result:
            await result.get_output()

    model = agents.OpenAIChatCompletionsModel(MODEL, AsyncOpenAI(base_url=provider.url, api_key="x"))
    agent, quiet = agents.Agent("a", model=model, output_type=Person), agents.RunConfig(tracing_disabled=True)
    agent = spending(agent, budget)

    async def agents_stream():
        async for _ in agents.Runner.run_streamed(agent, "Hi", run_config=quiet).stream_events():
            pass

    runs = [
        lambda: assistant.run("Hi"),
        lambda: writer.run("Hi"),
        pydantic_stream,
        lambda: agents.Runner.run(agent, "Hi", run_config=quiet),
        agents_stream,
    ]
    for run in runs:
        with pytest.raises(BudgetExceeded, match=r"100 tokens left of 100, .* does not cover another answer") as raised:
            asyncio.run(run())
        error = raised.value
        assert (error.kind, error.used, error.limit) == ("all", 0, 100)
        assert error.requested > 100
        assert f"all: 100 left, {error.requested:,} needed" in str(error)
    assert provider.requests == []
    either = Agent(TestModel(), output_type=[str, Person], capabilities=[Spending(budget)])
    assert asyncio.run(either.run("Hi")).output.startswith("[stopped: ")


def test_agents_that_are_handed_over_to_come_along(provider):
    agents = pytest.importorskip("agents")
    from budgeteer.adapters.openai_agents_run import AgentModel, spending

    tool = agents.function_tool(search)
    second = agents.Agent("second", model="gpt-4o", tools=[tool])
    first = agents.Agent("first", model="gpt-4o", handoffs=[second])
    second.handoffs = [first]
    own = spending(first, AgentBudget.parse("10k"), agents.OpenAIProvider(api_key="x", base_url=provider.url))
    assert first.handoffs == [second]
    assert isinstance(own.handoffs[0].model, AgentModel)
    assert own.handoffs[0].handoffs == [own]
    assert own.handoffs[0].tools[0] is not tool
    assert (own.handoffs[0].tools[0].name, second.tools) == ("search", [tool])


def test_agents_behind_a_handoff_of_their_own_come_along(provider):
    agents = pytest.importorskip("agents")
    from openai import AsyncOpenAI

    from budgeteer.adapters.openai_agents_run import spending

    asked = []

    def agent(name, **more):
        model = agents.OpenAIChatCompletionsModel(MODEL, AsyncOpenAI(base_url=provider.url, api_key="x"))
        return agents.Agent(name, model=model, **more)

    second = agent("second")
    handoff = agents.handoff(second, on_handoff=lambda context: asked.append("handed over"))
    budget = AgentBudget.parse("10k, turns:5")
    first = spending(agent("first", handoffs=[handoff]), budget)
    assert first.handoffs[0] is not handoff
    quiet, given = agents.RunConfig(tracing_disabled=True), agents.RunContextWrapper(None)

    async def run():
        own, again = [await first.handoffs[0].on_invoke_handoff(given, "") for _ in range(2)]
        assert asked == ["handed over"] * 2
        assert own is again
        assert own is not second
        assert own is first.handoffs[0]._agent_ref()  # by which a saved run finds it
        assert (await agents.Runner.run(own, "Hi", run_config=quiet)).last_agent is own
        assert budget.spent == {"all": provider.billed, "turns": 1}
        await agents.Runner.run(spending(own, budget), "Hi", run_config=quiet)

    asyncio.run(run())
    assert budget.spent == {"all": provider.billed, "turns": 2}


def test_an_agent_as_a_tool_has_to_be_on_the_budget_first():
    agents = pytest.importorskip("agents")
    from budgeteer.adapters.openai_agents_run import spending

    budget, provider = AgentBudget.parse("10k"), agents.OpenAIProvider(api_key="x")
    inner = agents.Agent("inner", model="gpt-4o")
    with pytest.raises(InvalidInput, match=r"the tool ask.* agent inner.*spending\(.*\)\.as_tool"):
        spending(agents.Agent("outer", model="gpt-4o", tools=[inner.as_tool("ask", "Ask it.")]), budget, provider)
    tool = spending(inner, budget, provider).as_tool("ask", "Ask it.")
    assert spending(agents.Agent("outer", model="gpt-4o", tools=[tool]), budget, provider).tools[0].name == "ask"
    with pytest.raises(InvalidInput, match="another budget"):
        spending(agents.Agent("outer", model="gpt-4o", tools=[tool]), AgentBudget.parse("10k"), provider)


def test_resources_and_prompts_of_an_mcp_server():
    pytest.importorskip("mcp")
    from mcp import Client, MCPError
    from mcp.server.mcpserver import MCPServer

    from budgeteer.adapters.mcp import spending

    server = MCPServer("test")

    @server.resource("notes://long")
    def long() -> str:
        return "noted " * 1_000

    @server.resource("notes://picture", mime_type="image/png")
    def picture() -> bytes:
        return b"\x89PNG" + b"x" * 9_000

    @server.prompt()
    def review(code: str) -> str:
        return f"Review this: {code}"

    async def main():
        budget = AgentBudget.parse("10k, tool:read_resource:3, tool:4, bytes:9k")
        async with Client(server) as client:
            mine = spending(client, budget)
            whole = await mine.read_resource("notes://long")
            assert whole.contents[0].text == "noted " * 1_000
            image = await mine.read_resource("notes://picture")
            assert image.contents[0].text == "[12,008 characters of image/png left out]"
            cut = await mine.read_resource("notes://long")
            assert cut.contents[0].text.endswith("characters are more than the budget leaves room for]")
            refused = await mine.read_resource("notes://long")
            assert refused.contents[0].text.startswith("[read_resource was not called: ")
            assert budget.spent["tool:read_resource"] == budget.spent["tool"] == 3
        assert 0 <= budget.allowance.remaining["bytes"] < 100
        free = AgentBudget.parse("10k, tool:get_prompt:2, bytes:9k")
        async with Client(server) as client:
            mine = spending(client, free)
            found = await mine.get_prompt("review", {"code": "x = 1"})
            assert found.messages[0].content.text == "Review this: x = 1"
            assert free.spent["bytes"] == len("Review this: x = 1")
            with pytest.raises(MCPError):
                await mine.get_prompt("no such prompt")
            assert free.spent["tool:get_prompt"] == 2
            last = await mine.get_prompt("review", {"code": "x = 1"})
            assert last.messages[0].content.text.startswith("[get_prompt was not called: ")

    asyncio.run(main())


def test_tools_of_an_mcp_server():
    pytest.importorskip("mcp")
    from mcp import Client
    from mcp.server.mcpserver import Image, MCPServer

    from budgeteer.adapters.mcp import spending

    server = MCPServer("test")

    @server.tool()
    def find(query: str) -> str:
        return "found " * 1_000

    def picture():
        return Image(data=b"\x89PNG" + b"x" * 3_000, format="png")

    picture.__annotations__["return"] = Image  # which the server looks for among the names of this module
    server.tool()(picture)

    @server.tool()
    def fails() -> str:
        raise ValueError("no such thing")

    @server.tool()
    async def hangs() -> str:
        await asyncio.sleep(3600)
        return ""

    async def main():
        budget = AgentBudget.parse("10k, tool:find:2, bytes:9k")
        async with Client(server) as client:
            mine = spending(client, budget)
            assert [tool.name for tool in (await mine.list_tools()).tools] == ["find", "picture", "fails", "hangs"]
            first = await mine.call_tool("find", {"query": "x"})
            assert (first.content[0].text, first.is_error) == ("found " * 1_000, False)
            left = budget.allowance.remaining["bytes"]
            assert left <= 3_000
            image = await mine.call_tool("picture")
            assert image.content[0].text.startswith("[image of 4,")
            assert (await mine.call_tool("fails")).is_error
            second = await mine.call_tool("find", {"query": "x"})
            assert second.content[0].text.endswith("characters are more than the budget leaves room for]")
            third = await mine.call_tool("find", {"query": "x"})
            assert third.is_error
            assert third.content[0].text.startswith("[find was not called: ")
        assert budget.spent["tool:find"] == 2
        assert budget.allowance.remaining["bytes"] >= 0
        impatient = AgentBudget.parse("10k, tool:hangs:2", patience=0.1)
        async with Client(server) as client:
            mine = spending(client, impatient)
            found = await asyncio.gather(*[mine.call_tool("hangs") for _ in range(3)])  # at once
        assert all(one.is_error for one in found)
        assert sum(one.content[0].text.startswith("[hangs gave no answer within 0.1 s") for one in found) == 2
        assert impatient.spent["tool:hangs"] == 2

    asyncio.run(main())


def test_the_page_is_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import frameworks

    rows = json.loads((ROOT / "benchmarks" / "results" / "frameworks.json").read_text())["rows"]
    assert (ROOT / "docs" / "frameworks.md").read_text() == frameworks.page(rows)
    assert {(row["framework"], row["scenario"], row["arm"]) for row in rows} == {
        (one.name, scenario, arm)
        for one in frameworks.FRAMEWORKS
        for scenario in frameworks.SCENARIOS
        for arm in frameworks.arms_of(scenario, one)
    }
    assert [fault(row) for row in rows if row["arm"] != "own" and fault(row)] == []


def test_budgets_that_would_not_hold_and_parts_of_more_than_all_are_refused() -> None:
    for kind in ("joules", "cache"):  # nothing counts them before a call: they were held and charged with 0
        with pytest.raises(InvalidInput, match=f"how much of {kind} it takes"):
            AgentBudget.parse(f"50k, {kind}:5")
    with pytest.raises(InvalidInput, match="the part of ask is 150% of what is left; give 100% at most"):
        AgentBudget.parse("50k", parts={"ask": "150%"})
    with pytest.raises(InvalidInput, match="the part of ask is 5000; write it as a text"):
        AgentBudget.parse("50k", parts={"ask": 5000})  # type: ignore[dict-item]
