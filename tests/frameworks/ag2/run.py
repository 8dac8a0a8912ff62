"""AG2: an Agent with the configuration for OpenAI's API."""

from ag2 import Agent
from ag2.config import OpenAIConfig
from ag2.middleware import BaseMiddleware, Middleware
from ag2.observers import TokenMonitor
from scenarios import BASE_URL, MODEL, TOKENS, run

from budgeteer.adapters.ag2 import spending


class StillGoing(Exception):
    """Raised by this program, since nothing of AG2 ends the run."""


class Counted(BaseMiddleware):
    """Ends a run that AG2 would let go on for ever."""

    calls = depth = 0

    async def on_llm_call(self, call_next, events, context):
        Counted.calls += 1
        if Counted.calls > 12:
            raise StillGoing("12 calls")
        return await call_next(events, context)


def make(name, tools, budget=None, limit=None, stream=False):
    async def ask(question):
        config = OpenAIConfig(MODEL, base_url=BASE_URL, api_key="x", max_retries=2, streaming=stream)
        own = (
            {"observers": [TokenMonitor(alert_threshold=TOKENS)], "middleware": [Middleware(Counted)]} if limit else {}
        )
        agent = Agent(name, f"You are {name}.", config=config, tools=list(tools), **own)
        if budget:
            spending(agent, budget)
        if not Counted.depth:
            Counted.calls = 0
        Counted.depth += 1
        try:
            return (await agent.ask(question)).body
        finally:
            Counted.depth -= 1

    return ask


if __name__ == "__main__":
    run(make)
