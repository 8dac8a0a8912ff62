"""An agent or a model that spends from one budget is refused by another, and is not wrapped twice by its own."""

from __future__ import annotations

import asyncio

import pytest

from budgeteer.adapters.wrapped import spends_from
from budgeteer.core.errors import InvalidInput
from budgeteer.metering.agents import AgentBudget

OTHER = "spends from another budget already; give one that is not wrapped"


def search(query: str) -> str:
    """Search."""
    return "nothing"


def test_a_budget_and_its_metering_are_the_same():
    one, other = AgentBudget.parse("10k"), AgentBudget.parse("10k")
    assert not spends_from(None, one)
    assert spends_from(one, one)
    assert spends_from(one.metering, one)
    for known in (other, other.metering):
        with pytest.raises(InvalidInput, match=f"the agent a {OTHER}"):
            spends_from(known, one, "the agent a")


def test_openai_agents():
    agents = pytest.importorskip("agents")
    from openai import AsyncOpenAI

    from budgeteer.adapters.openai_agents import BudgetedModel
    from budgeteer.adapters.openai_agents_run import spending

    one, other = AgentBudget.parse("10k"), AgentBudget.parse("10k")
    model = agents.OpenAIChatCompletionsModel("m", AsyncOpenAI(base_url="http://127.0.0.1:9/v1", api_key="x"))
    own = spending(agents.Agent("a", model=model), one)
    assert spending(agents.Agent("b", model=own.model), one).model is own.model
    for known in (own.model, BudgetedModel(model, one.metering)):
        agent = agents.Agent("b", model=known)
        with pytest.raises(InvalidInput, match=OTHER):
            spending(agent, other)
        with pytest.raises(InvalidInput, match=OTHER):  # by way of a handoff
            spending(agents.Agent("c", model=model, handoffs=[agent]), other)
    metered = BudgetedModel(model, one.metering)
    assert spending(agents.Agent("b", model=metered), one).model.wrapped is metered
    (tool,) = spending(agents.Agent("c", model=model, tools=[agents.function_tool(search)]), one).tools
    assert spending(agents.Agent("c", model=model, tools=[tool]), one).tools == [tool]
    with pytest.raises(InvalidInput, match=f"the tool search {OTHER}"):
        spending(agents.Agent("c", model=model, tools=[tool]), other)


def test_pydantic_ai():
    pytest.importorskip("pydantic_ai")
    from pydantic_ai import Agent
    from pydantic_ai.models.test import TestModel

    from budgeteer.adapters.pydantic_ai import BudgetedModel
    from budgeteer.adapters.pydantic_ai_run import Spending

    one, other = AgentBudget.parse("10k, turns:9"), AgentBudget.parse("10k")
    model = BudgetedModel(TestModel(custom_output_text="Hello"), one.metering)
    wrapped = Spending(one).get_wrapper_model(model)
    for known in (model, wrapped):
        with pytest.raises(InvalidInput, match=OTHER):
            asyncio.run(Agent(known, capabilities=[Spending(other)]).run("Hi"))
    assert one.spent["all"] == other.spent["all"] == 0
    charged = []
    for known in (model, wrapped):
        assert asyncio.run(Agent(known, capabilities=[Spending(one)]).run("Hi")).output == "Hello"
        charged.append(one.spent["all"])
    assert charged[1] == 2 * charged[0] > 0  # once for each run
    assert one.spent["turns"] == 2


def test_pydantic_ai_counts_once_and_takes_the_budget_of_the_run():
    pytest.importorskip("pydantic_ai")
    from pydantic_ai import Agent
    from pydantic_ai.models.test import TestModel

    from budgeteer.adapters.pydantic_ai_run import Spending

    one, other = (AgentBudget.parse("10k, tool:search:9") for _ in range(2))
    agent = Agent(TestModel(), tools=[search], capabilities=[Spending(one), Spending(one)])
    asyncio.run(agent.run("Hi"))
    assert one.spent["tool:search"] == 1
    before = one.spent
    asyncio.run(agent.run("Hi", capabilities=[Spending(other)]))
    assert (one.spent, other.spent["tool:search"]) == (before, 1)
    with pytest.raises(InvalidInput, match=OTHER):
        Agent(TestModel(), capabilities=[Spending(one), Spending(other)])


def test_a_session_of_an_mcp_server():
    pytest.importorskip("mcp")
    from mcp.types import CallToolResult, TextContent

    from budgeteer.adapters.mcp import spending

    class Session:
        async def call_tool(self, name, arguments):
            return CallToolResult(content=[TextContent(type="text", text="found")])

    one = AgentBudget.parse("10k, tool:search:9")
    twice = spending(spending(Session(), one), one)
    assert asyncio.run(twice.call_tool("search", {})).content[0].text == "found"
    assert one.spent["tool:search"] == 1
    with pytest.raises(InvalidInput, match=f"the session {OTHER}"):
        spending(twice, AgentBudget.parse("10k"))
