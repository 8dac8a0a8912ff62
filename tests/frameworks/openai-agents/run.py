"""Agents of the OpenAI Agents SDK, with its model of chat completions."""

import agents
from openai import AsyncOpenAI
from scenarios import BASE_URL, MODEL, run

from budgeteer.adapters.openai_agents_run import spending

agents.set_tracing_disabled(True)


def make(name, tools, budget=None, limit=None, stream=False):
    async def ask(question):
        client = AsyncOpenAI(base_url=BASE_URL, api_key="x", max_retries=2)
        agent = agents.Agent(
            name,
            instructions=f"You are {name}.",
            model=agents.OpenAIChatCompletionsModel(MODEL, client),
            tools=[agents.function_tool(tool) for tool in tools],
        )
        if budget:
            agent = spending(agent, budget)
        if not stream:
            return (await agents.Runner.run(agent, question, max_turns=limit)).final_output
        result = agents.Runner.run_streamed(agent, question, max_turns=limit)
        async for _ in result.stream_events():
            pass
        return result.final_output

    return ask


if __name__ == "__main__":
    run(make)
