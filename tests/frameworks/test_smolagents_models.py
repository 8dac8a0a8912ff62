"""smolagents with a model that is no OpenAI client's: ``make test-frameworks``."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.frameworks
pytest.importorskip("smolagents.agents")  # the folder of that name beside this file is none

from smolagents import ToolCallingAgent, tool  # noqa: E402
from smolagents.models import (  # noqa: E402
    ChatMessage,
    ChatMessageToolCall,
    ChatMessageToolCallFunction,
    MessageRole,
    Model,
    TokenUsage,
)

from budgeteer.adapters.smolagents import AgentModel, spending  # noqa: E402
from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.metering.agents import AgentBudget  # noqa: E402

ran: list[str] = []


@tool
def search(query: str) -> str:
    """Search.

    Args:
        query: what for.
    """
    ran.append(query)
    return "nothing"


class Scripted(Model):
    """Writes as many tokens as the larger of its caps allows."""

    def generate(self, messages, stop_sequences=None, response_format=None, tools_to_call_from=None, **more):
        body = self._prepare_completion_kwargs(messages=messages, tools_to_call_from=tools_to_call_from, **more)
        made = max(body[name] for name in ("max_tokens", "max_completion_tokens") if name in body)
        return ChatMessage(MessageRole.ASSISTANT, "w" * made, token_usage=TokenUsage(100, made))


@pytest.mark.parametrize("cap", ["max_tokens", "max_completion_tokens"])
def test_a_last_answer_is_capped_in_the_field_that_the_model_s_settings_use(cap):
    agent = ToolCallingAgent([search], Scripted(model_id="scripted", **{cap: 3000}), verbosity_level=0, max_steps=3)
    reserved = []
    budget = AgentBudget.parse("6k", on_settle=reserved.append)
    assert str(spending(agent, budget).run("Hi")).startswith("w")
    (last,) = reserved
    assert last.cap < 3000  # what is left after the prompt
    assert last.usage.output == last.cap
    assert budget.spent["all"] <= last.reserved["all"]


class Searching(Model):
    """Calls ``search`` as long as it may."""

    def generate(self, messages, stop_sequences=None, response_format=None, tools_to_call_from=None, **more):
        self._prepare_completion_kwargs(messages=messages, tools_to_call_from=tools_to_call_from, **more)
        if not tools_to_call_from:
            return ChatMessage(MessageRole.ASSISTANT, "Done.", token_usage=TokenUsage(10, 2))
        call = ChatMessageToolCall(ChatMessageToolCallFunction({"query": "x"}, "search"), "1", "function")
        return ChatMessage(MessageRole.ASSISTANT, "", tool_calls=[call], token_usage=TokenUsage(10, 2))


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "its model was wrapped before"])
def test_tools_are_counted_once_however_often_an_agent_is_put_on_a_budget(wrapped):
    budget = AgentBudget.parse("60k, tool:search:3, tool:child:1")
    model = Searching(model_id="scripted")
    ran.clear()
    child = ToolCallingAgent(
        [search], AgentModel(model, budget) if wrapped else model, verbosity_level=0, name="child", description="One.",
        max_steps=3,
    )  # fmt: skip
    agent = ToolCallingAgent(
        [search], AgentModel(model, budget) if wrapped else model, verbosity_level=0, max_steps=5,
        managed_agents=[child],
    )  # fmt: skip
    agent = spending(spending(agent, budget), budget)
    agent.run("Hi")
    assert len(ran) == 3
    assert budget.spent["tool:search"] == 3
    agent.managed_agents["child"]("Hi")
    assert budget.spent["tool:child"] == 1


def test_a_model_of_another_budget_is_refused():
    one, other = AgentBudget.parse("6k"), AgentBudget.parse("6k")
    model = Scripted(model_id="scripted")
    agent = spending(ToolCallingAgent([search], model, verbosity_level=0), one)
    assert spending(agent, one) is agent
    assert AgentModel(agent.model, one).asked is model
    child = ToolCallingAgent([search], agent.model, verbosity_level=0, name="child", description="A child.")
    for refused in (agent, ToolCallingAgent([search], model, managed_agents=[child], verbosity_level=0)):
        with pytest.raises(InvalidInput, match="spends from another budget already"):
            spending(refused, other)
