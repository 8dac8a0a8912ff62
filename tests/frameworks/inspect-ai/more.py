"""inspect_ai: a model and tools that are put on a budget twice, and on two, with a client of OpenAI's or without."""

from cases import run, search
from inspect_ai.model import ChatMessageUser, get_model
from inspect_ai.tool import ToolDef
from scenarios import BASE_URL, MODEL

from budgeteer.adapters.inspect_ai import metered, spending
from budgeteer.metering.agents import AgentBudget


async def tool(query: str):
    return search(query)


def model():
    return get_model(f"openai/{MODEL}", base_url=BASE_URL, api_key="x", memoize=False)


async def again(budget):
    parameters = {"query": "what to search for"}
    tools = metered(metered([ToolDef(tool, "search", "Search for something.", parameters)], budget), budget)
    twice = spending(spending(model(), budget), budget)
    return (await twice.generate_loop([ChatMessageUser(content="do: search")], tools))[1].completion


async def another(budget):
    return await spending(spending(model(), AgentBudget.parse("12k")), budget).generate("Hello")


async def tools(budget):
    found = metered([ToolDef(tool, "search", "Search for something.", {"query": "x"})], AgentBudget.parse("12k"))
    return metered(found, budget)


async def plain(budget):
    return await spending(spending(get_model("mockllm/model"), AgentBudget.parse("12k")), budget).generate("Hello")


run({"again": again, "another": another, "plain": plain, "tools": tools})
