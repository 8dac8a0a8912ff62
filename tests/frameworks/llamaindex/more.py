"""LlamaIndex: an agent that is put on a budget twice, or with tools of one that is, and on two budgets."""

import sys

from cases import ran, run, search
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ImageBlock, TextBlock
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI
from pydantic import BaseModel
from scenarios import BASE_URL, MODEL

from budgeteer.adapters.llamaindex import spending
from budgeteer.metering.agents import AgentBudget


class Report(BaseModel):
    text: str


def agent(tools=None, **more):
    llm = OpenAI(MODEL, api_base=BASE_URL, api_key="x", max_retries=0)
    tools = tools or [FunctionTool.from_defaults(fn=search)]
    return FunctionAgent(name="agent", tools=tools, llm=llm, streaming=False, timeout=None, **more)


async def again(budget):
    return await spending(spending(agent(), budget), budget).run("do: search", max_iterations=99)


async def shared(budget):
    return await spending(agent(spending(agent(), budget).tools), budget).run("do: search", max_iterations=99)


async def another(budget):
    return await spending(spending(agent(), AgentBudget.parse("12k")), budget).run("do: search")


async def structured(budget):
    """A further call of the model makes an object of the answer."""
    return await spending(agent(output_cls=Report), budget).run("do: search", max_iterations=99)


async def early(budget):
    """A further call of the model ends the run."""
    return await spending(agent(), budget).run("do: search", max_iterations=3, early_stopping_method="generate")


def seen(query: str) -> list[TextBlock | ImageBlock]:
    """Search for something.

    Args:
        query: what to search for.
    """
    ran.append(query)
    more = bytes(300 if sys.argv[1] == "small" else 300_000)
    return [
        TextBlock(text="A map."),
        ImageBlock(image=b"\x89PNG\r\n\x1a\n" + more, image_mimetype="image/png"),
    ]


seen.__name__ = "search"


async def picture(budget):
    """A result of which a picture is the larger part."""
    tool = FunctionTool.from_defaults(fn=seen)
    return await spending(agent([tool]), budget).run("do: search", max_iterations=99)


run(
    {
        "again": again,
        "shared": shared,
        "another": another,
        "structured": structured,
        "early": early,
        "picture": picture,
        "small": picture,
    }
)
