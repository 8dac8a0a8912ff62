"""LangChain with a model that is no OpenAI client's: metered message by message, ``make test-frameworks``."""

from __future__ import annotations

import asyncio

import pytest

pytestmark = pytest.mark.frameworks
pytest.importorskip("langchain.agents")  # the folder of that name beside this file is none

from langchain.agents import create_agent  # noqa: E402
from langchain.agents.middleware import ModelRetryMiddleware, SummarizationMiddleware  # noqa: E402
from langchain_core.language_models import BaseChatModel  # noqa: E402
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage  # noqa: E402
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult  # noqa: E402

from budgeteer.adapters.langchain import BudgetedChatModel, BudgetMiddleware, budgeted  # noqa: E402
from budgeteer.core.errors import BudgetExceeded, InvalidInput  # noqa: E402
from budgeteer.metering.agents import LAST, AgentBudget  # noqa: E402
from budgeteer.metering.estimate import Bounds  # noqa: E402

BOUNDS = Bounds(overhead=0, max_output=50)


class Scripted(BaseChatModel):
    """Calls the first of its tools for as long as it has any; 10 tokens read and 5 made each time."""

    asked: list = []  # noqa: RUF012 -- a field of pydantic, copied for each model
    fails: int = 0

    @property
    def _llm_type(self):
        return "scripted"

    def bind_tools(self, tools, **more):
        return self.bind(tools=tools, **more)

    def _generate(self, messages, stop=None, run_manager=None, **more):
        self.asked.append((messages, more))
        if len(self.asked) <= self.fails:
            raise ValueError("overloaded")
        usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        calls = [{"name": "search", "args": {"query": "x"}, "id": str(len(self.asked))}] if more.get("tools") else []
        message = AIMessage("" if calls else "the end", tool_calls=calls, usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(self, messages, stop=None, run_manager=None, **more):
        self.asked.append((messages, more))
        for word in ("one ", "two ", "three"):
            yield ChatGenerationChunk(message=AIMessageChunk(word))


def search(query: str) -> str:
    """Search."""
    return "found"


def ask(agent):
    return agent.invoke({"messages": [HumanMessage("Hi")]})["messages"]


@pytest.mark.parametrize("waits", [False, True], ids=["sync", "async"])
def test_turns_and_tools_end_with_an_answer(waits):
    budget, model = AgentBudget.parse("100k, turns:3, tool:search:1", bounds=BOUNDS), Scripted()
    agent = create_agent(model, [search], middleware=[BudgetMiddleware(budget)])
    given = {"messages": [HumanMessage("Hi")]}
    messages = (asyncio.run(agent.ainvoke(given)) if waits else agent.invoke(given))["messages"]
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai", "tool", "ai"]
    assert messages[2].text == "found"
    assert (messages[4].status, messages[4].text.partition(":")[0]) == ("error", "[search was not called")
    assert messages[5].text == "the end"
    assert budget.spent == {"all": 45, "turns": 3, "tool:search": 1}
    assert [bool(more.get("tools")) for _, more in model.asked] == [True, True, False]
    assert model.asked[2][0][-1].text == LAST
    assert all(more["max_tokens"] == 50 for _, more in model.asked)


def test_a_picture_of_a_tool_comes_whole_or_not_at_all():
    def search(query: str) -> list:
        """Search."""
        url = "data:image/png;base64," + "A" * (40_000 if len(sizes) else 400)
        sizes.append(len(url))
        return [{"type": "text", "text": "A map."}, {"type": "image_url", "image_url": {"url": url}}]

    sizes = []
    budget = AgentBudget.parse("900k, turns:3, bytes:32k", bounds=BOUNDS)
    messages = ask(create_agent(Scripted(), [search], middleware=[BudgetMiddleware(budget)]))
    first, second = (message.content for message in messages if message.type == "tool")
    assert [part["type"] for part in first] == ["text", "image_url"]
    assert second == [
        {"type": "text", "text": "A map."},
        {"type": "text", "text": "[image_url was left out: there is no room for it]"},
    ]
    assert 400 < budget.spent["bytes"] < 2_000


def test_retries_and_summaries_are_metered_one_by_one():
    budget = AgentBudget.parse("100k, turns:4", bounds=BOUNDS)
    model = Scripted(fails=1)
    small = budgeted(Scripted(), budget)
    summary = SummarizationMiddleware(small, trigger=("messages", 2), keep=("messages", 1))
    retry = ModelRetryMiddleware(max_retries=2, initial_delay=0)
    agent = create_agent(model, [search], middleware=[summary, retry, BudgetMiddleware(budget)])
    assert ask(agent)[-1].text in (
        "the end",
        "[stopped: the budget does not cover another answer; turns: 0 left, 1 needed]",
    )
    assert budget.spent["turns"] == 4
    assert len(model.asked) + len(small.wrapped.asked) == 4
    assert small.wrapped.asked
    assert budget.spent["all"] > 4 * 15  # what failed was charged at its bound


def test_a_stream_is_charged_what_was_seen_and_a_call_beyond_the_budget_is_not_made():
    budget = AgentBudget.parse("1000", bounds=BOUNDS)
    model = budgeted(Scripted(), budget)
    assert isinstance(model, BudgetedChatModel)
    assert budgeted(model, budget) is model
    assert "".join(piece.text for piece in model.stream("Hi")) == "one two three"
    whole = budget.spent["all"]
    assert 0 < whole < 1000
    stream = model.stream("Hi")
    assert next(stream).text == "one "
    stream.close()
    assert whole < budget.spent["all"] <= 2 * whole + 50
    with pytest.raises(BudgetExceeded):
        model.invoke("Hi " * 500)
    assert len(model.wrapped.asked) == 2


def test_a_model_that_retries_by_itself_is_refused():
    class Retrying(Scripted):
        max_retries: int = 2

    with pytest.raises(InvalidInput, match="max_retries=0"):
        budgeted(Retrying(), AgentBudget.parse("10k"))
    assert budgeted(Retrying(max_retries=0), AgentBudget.parse("10k"))


def test_a_model_of_another_budget_is_refused():
    one, other = AgentBudget.parse("10k"), AgentBudget.parse("10k")
    model = budgeted(Scripted(), one)
    assert budgeted(model, one) is budgeted(model, one.metering) is model
    for another in (other, other.metering):
        with pytest.raises(InvalidInput, match="spends from another budget already"):
            budgeted(model, another)
    with pytest.raises(InvalidInput, match="spends from another budget already"):
        ask(create_agent(model, [search], middleware=[BudgetMiddleware(other)]))
    assert model.wrapped.asked == []


def test_tools_of_a_graph_without_create_agent():
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode

    budget = AgentBudget.parse("10k, tool:search:1")
    node = ToolNode([search], wrap_tool_call=BudgetMiddleware(budget).wrap_tool_call)
    graph = StateGraph(MessagesState)
    graph.add_node("tools", node)
    graph.add_edge(START, "tools")
    calls = [{"name": "search", "args": {"query": str(n)}, "id": str(n)} for n in range(2)]
    said = graph.compile().invoke({"messages": [AIMessage("", tool_calls=calls)]})["messages"]
    assert sorted(message.text[:5] for message in said[1:]) == ["[sear", "found"]
