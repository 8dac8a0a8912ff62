"""LlamaIndex: an agent that is put on a budget twice, or with tools of one that is, and on two budgets."""

from cases import run, search
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI
from scenarios import BASE_URL, MODEL

from budgeteer.adapters.llamaindex import spending
from budgeteer.metering.agents import AgentBudget


def agent(tools=None):
    llm = OpenAI(MODEL, api_base=BASE_URL, api_key="x", max_retries=0)
    tools = tools or [FunctionTool.from_defaults(fn=search)]
    return FunctionAgent(name="agent", tools=tools, llm=llm, streaming=False, timeout=None)


async def again(budget):
    return await spending(spending(agent(), budget), budget).run("do: search", max_iterations=99)


async def shared(budget):
    return await spending(agent(spending(agent(), budget).tools), budget).run("do: search", max_iterations=99)


async def another(budget):
    return await spending(spending(agent(), AgentBudget.parse("12k")), budget).run("do: search")


run({"again": again, "shared": shared, "another": another})
