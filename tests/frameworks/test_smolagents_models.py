"""smolagents with a model that is no OpenAI client's: ``make test-frameworks``."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.frameworks
pytest.importorskip("smolagents.agents")  # the folder of that name beside this file is none

from smolagents import ToolCallingAgent, tool  # noqa: E402
from smolagents.models import ChatMessage, MessageRole, Model, TokenUsage  # noqa: E402

from budgeteer.adapters.smolagents import AgentModel, spending  # noqa: E402
from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.metering.agents import AgentBudget  # noqa: E402


@tool
def search(query: str) -> str:
    """Search.

    Args:
        query: what for.
    """
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
