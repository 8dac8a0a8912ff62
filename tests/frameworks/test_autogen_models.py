"""AutoGen with a client that is no OpenAI client's: ``make test-frameworks``."""

from __future__ import annotations

import asyncio

import pytest

pytestmark = pytest.mark.frameworks
pytest.importorskip("autogen_core")

from autogen_core.models import CreateResult, RequestUsage, UserMessage  # noqa: E402

from budgeteer.adapters.autogen import AgentModel, spending  # noqa: E402
from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.metering.agents import AgentBudget  # noqa: E402


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


def test_a_client_of_another_budget_is_refused():
    from autogen_agentchat.agents import AssistantAgent

    client, one, other = Scripted(max_tokens=100), AgentBudget.parse("2k"), AgentBudget.parse("2k")
    client.model_info = {"function_calling": True, "vision": False}
    agent = spending(AssistantAgent("one", client), one)
    assert spending(agent, one) is agent
    assert AgentModel(agent._model_client, one).asked is client
    with pytest.raises(InvalidInput, match="spends from another budget already"):
        spending(agent, other)
    with pytest.raises(InvalidInput, match="spends from another budget already"):
        AgentModel(agent._model_client, other)
