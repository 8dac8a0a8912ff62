"""AutoGen with a client that is no OpenAI client's: ``make test-frameworks``."""

from __future__ import annotations

import asyncio

import pytest

pytestmark = pytest.mark.frameworks
pytest.importorskip("autogen_agentchat")

from autogen_agentchat.agents import AssistantAgent  # noqa: E402
from autogen_agentchat.tools import AgentTool  # noqa: E402
from autogen_core import FunctionCall  # noqa: E402
from autogen_core.models import CreateResult, RequestUsage, UserMessage  # noqa: E402
from autogen_core.tools import FunctionTool, StaticStreamWorkbench, StaticWorkbench  # noqa: E402

from budgeteer.adapters.autogen import AgentModel, _fit, spending  # noqa: E402
from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.metering.agents import AgentBudget  # noqa: E402
from budgeteer.metering.results import Room  # noqa: E402


class Scripted:
    """Writes as many tokens as the larger of its caps allows."""

    def __init__(self, **settings):
        self._create_args = {"model": "scripted", **settings}

    async def create(self, messages, **more):
        settings = self._create_args | more["extra_create_args"]
        self.caps = {name: cap for name, cap in settings.items() if "max" in name}
        made = max(self.caps.values())
        usage = RequestUsage(prompt_tokens=100, completion_tokens=made)
        return CreateResult(finish_reason="stop", content="w" * made, usage=usage, cached=False)


@pytest.mark.parametrize("cap", ["max_tokens", "max_completion_tokens"])
def test_a_call_is_capped_in_the_field_that_the_client_s_settings_use(cap):
    client, settled = Scripted(**{cap: 3000}), []
    budget = AgentBudget.parse("2k", on_settle=settled.append)
    asyncio.run(AgentModel(client, budget).create([UserMessage(content="Hi", source="user")]))
    (call,) = settled
    assert client.caps == {cap: call.cap}
    assert call.cap < 3000  # what is left after the prompt
    assert budget.spent["all"] <= call.reserved["all"]


def test_several_choices_are_reserved():
    reserved = []
    for n in (1, 4):
        budget = AgentBudget.parse("4k", on_settle=lambda call: reserved.append(call.reserved["all"]))
        asyncio.run(
            AgentModel(Scripted(max_tokens=100, n=n), budget).create([UserMessage(content="Hi", source="user")])
        )
    assert reserved[1] - reserved[0] == 300


class Searching(Scripted):
    """Calls tools as long as it is given some: each of them once in a step."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.model_info = {"function_calling": True, "vision": False}

    async def create(self, messages, **more):
        calls = [FunctionCall(id=f"{n}", name=tool.get("name"), arguments='{"query": "x", "task": "x"}')
                 for n, tool in enumerate(getattr(one, "schema", one) for one in more["tools"])]  # fmt: skip
        usage = RequestUsage(prompt_tokens=10, completion_tokens=2)
        return CreateResult(finish_reason="stop", content=calls or "Done.", usage=usage, cached=False)


async def search(query: str) -> str:
    """Search for something."""
    ran.append(query)
    return "nothing " * (5_000 if query == "much" else 1)


ran: list[str] = []


@pytest.mark.parametrize("how", ["tools", "workbench", "static workbench", "its model was wrapped before"])
def test_tools_are_counted_once_however_often_an_agent_is_put_on_a_budget(how):
    budget, tool = AgentBudget.parse("60k, tool:search:3"), FunctionTool(search, description="Search.")
    client = Searching(max_tokens=100)
    given = (
        {"workbench": [StaticWorkbench([tool])]} if how == "workbench"
        else {"workbench": StaticStreamWorkbench([tool])} if how == "static workbench"
        else {"tools": [tool]}
    )  # fmt: skip
    if how == "its model was wrapped before":
        client = AgentModel(client, budget)
    ran.clear()
    first, second = (AssistantAgent("one", client, max_tool_iterations=5, **given) for _ in range(2))
    spending(spending(first, budget), budget)
    assert spending(second, budget) is second  # which has the same tools
    asyncio.run(first.run(task="Hi"))
    assert len(ran) == 3
    assert budget.spent["tool:search"] == 3
    with pytest.raises(InvalidInput, match="another budget already"):
        spending(first, AgentBudget.parse("60k"))


def test_an_agent_used_as_a_tool_gets_its_part_and_its_messages_are_streamed():
    budget = AgentBudget.parse("60k, tool:search:9, tool:child:1", parts={"child": "10k, tool:search:2"})
    child = AssistantAgent("child", Searching(max_tokens=100), tools=[search], max_tool_iterations=5)
    parent = AssistantAgent("parent", Searching(max_tokens=100), tools=[AgentTool(spending(child, budget))],
                            max_tool_iterations=2)  # fmt: skip
    ran.clear()

    async def streamed():
        return [one async for one in spending(parent, budget).run_stream(task="Hi")]

    *events, found = asyncio.run(streamed())
    assert found.messages[-1].content.startswith("[child was not called: tool:child: 0 of 1 left")
    assert len(ran) == 2
    assert {one.source for one in events} == {"user", "parent", "child"}
    assert budget.spent["tool:child"] == 1


def test_what_a_tool_returns_is_cut_and_what_it_raises_is_told():
    async def fails(query: str) -> str:
        raise ValueError("no such thing")

    async def results(name, tool, budget):
        agent = spending(AssistantAgent("one", Searching(max_tokens=100), tools=[tool]), budget)
        (bench,) = agent._workbench
        return [one async for one in bench.call_tool_stream(name=name, arguments={"query": "much"})]

    budget = AgentBudget.parse("60k, bytes:1000")
    (found,) = asyncio.run(results("search", search, budget))
    assert found.to_text().endswith("characters are more than the budget leaves room for]")
    assert len(found.to_text()) <= 1000
    (found,) = asyncio.run(results("fails", fails, AgentBudget.parse("60k")))
    assert (found.to_text(), found.is_error) == ("no such thing", True)


def test_a_picture_that_is_too_large_is_left_out():
    from autogen_core import Image
    from autogen_core.tools import ImageResultContent, ToolResult
    from PIL import Image as Picture

    picture = ImageResultContent(content=Image(Picture.new("RGB", (4, 4))))
    result = ToolResult(name="see", result=[picture])
    assert _fit(result, Room(10_000)).result == [picture]
    assert _fit(result, Room(90)).to_text() == "[an image was left out]"


def test_a_client_of_another_budget_is_refused():
    client, one, other = Scripted(max_tokens=100), AgentBudget.parse("2k"), AgentBudget.parse("2k")
    client.model_info = {"function_calling": True, "vision": False}
    agent = spending(AssistantAgent("one", client), one)
    assert spending(agent, one) is agent
    assert AgentModel(agent._model_client, one).asked is client
    with pytest.raises(InvalidInput, match="spends from another budget already"):
        spending(agent, other)
    with pytest.raises(InvalidInput, match="spends from another budget already"):
        AgentModel(agent._model_client, other)
