"""CrewAI: an agent by itself, with its client for OpenAI's API; where a stream is asked for, it is awaited instead."""

import asyncio

from crewai import LLM, Agent
from crewai.tools import tool
from crewai.utilities import agent_utils
from scenarios import BASE_URL, MODEL, run

from budgeteer.adapters.crewai import spending

agent_utils.MAX_REPEATED_TOOL_CALLS = 10**6  # CrewAI ends with an error after five equal calls, which the model makes


def make(name, tools, budget=None, limit=None, stream=False):
    def ask(question):
        llm = LLM(model=f"openai/{MODEL}", base_url=BASE_URL, api_key="x", max_retries=0)
        agent = Agent(
            role=name, goal="Answer.", backstory=f"You are {name}.", llm=llm, max_iter=limit or 99, verbose=False,
            tools=[tool(one.__name__)(one) for one in tools], cache=False,
        )  # fmt: skip
        if budget:
            spending(agent, budget)
        if stream:
            return asyncio.run(agent.kickoff_async(question)).raw
        return agent.kickoff(question).raw

    return ask


if __name__ == "__main__":
    run(make)
