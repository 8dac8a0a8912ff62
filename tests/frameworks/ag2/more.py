"""AG2: streams, a run that is cancelled, a child that outlives its parent, and knowledge that is summed up."""

import asyncio

from ag2 import Agent, KnowledgeConfig
from ag2.agent import TaskConfig
from ag2.compact import CompactTrigger, SummarizeCompact
from ag2.config import OpenAIConfig
from ag2.knowledge import MemoryKnowledgeStore
from cases import binary, run, search
from scenarios import BASE_URL, MODEL

from budgeteer.adapters.ag2 import BudgetedConfig, spending


def config(**options):
    return OpenAIConfig(MODEL, base_url=BASE_URL, api_key="x", **options)


def agent(budget, *tools, **options):
    return spending(Agent("a", **{"config": config(), "tools": list(tools), **options}), budget)


async def asked(budget, question="do: search", **options):
    return (await agent(budget, search, **options).ask(question)).body


async def cancelled(budget):
    begun = asyncio.Event()

    async def slow(query: str) -> str:
        """Search for something."""
        begun.set()
        await asyncio.sleep(60)
        return query

    slow.__name__ = "search"
    task = asyncio.create_task(agent(budget, slow).ask("do: search"))
    await asyncio.wait_for(begun.wait(), 60)  # in the middle of a tool, however slow the machine is
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return budget


async def outlives(budget):
    """The tool returns before the child that it started has answered."""
    jobs = []

    async def ask_child(question: str) -> str:
        """Ask a colleague."""
        jobs.append(asyncio.create_task(agent(budget, search).ask("do: search")))
        return "started"

    said = (await agent(budget, ask_child).ask("do: ask_child")).body
    found = await asyncio.gather(*jobs)
    assert all(one.body.startswith("[stopped: ") for one in found), found
    return said


async def knowing(budget):
    knowledge = KnowledgeConfig(
        store=MemoryKnowledgeStore(), compact=SummarizeCompact(2, config()),
        compact_trigger=CompactTrigger(max_events=4),
    )  # fmt: skip
    first = await agent(budget, search, knowledge=knowledge).ask("do: search")
    return (await first.ask("do: search again")).body


async def again(budget):
    twice = BudgetedConfig(BudgetedConfig(config(), budget), budget)
    return (await spending(agent(budget, search, config=twice), budget).ask("do: search")).body


CASES = {
    "again": again,
    "parallel": lambda budget: asked(budget, "do: search x6"),
    "binary": lambda budget: asked(budget, tools=[binary]),
    "stream": lambda budget: asked(budget, config=config(streaming=True)),
    "cancelled": cancelled,
    "outlives": outlives,
    "knowing": knowing,
    "refused": lambda budget: asked(budget, tasks=TaskConfig()),
}

if __name__ == "__main__":
    run(CASES)
