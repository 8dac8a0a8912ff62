"""AG2: an Agent with the configuration for OpenAI's API."""

from ag2 import Agent
from ag2.config import OpenAIConfig
from scenarios import BASE_URL, MODEL, run

from budgeteer.adapters.ag2 import spending


def make(name, tools, budget=None, limit=None, stream=False):
    async def ask(question):
        config = OpenAIConfig(MODEL, base_url=BASE_URL, api_key="x", max_retries=2, streaming=stream)
        agent = Agent(name, f"You are {name}.", config=config, tools=list(tools))
        if budget:
            spending(agent, budget)
        return (await agent.ask(question)).body

    return ask


if __name__ == "__main__":
    run(make)
