"""Agents of pydantic-ai."""

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.usage import UsageLimits
from scenarios import BASE_URL, MODEL, TOKENS, run

from budgeteer.adapters.pydantic_ai_run import Spending


def make(name, tools, budget=None, limit=None, stream=False):
    limits = UsageLimits(total_tokens_limit=TOKENS) if limit else UsageLimits(request_limit=None)

    async def ask(question):
        client = AsyncOpenAI(base_url=BASE_URL, api_key="x", max_retries=2)
        model = OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client))
        agent = Agent(
            model, tools=tools, instructions=f"You are {name}.", capabilities=[Spending(budget)] if budget else []
        )
        if not stream:
            return (await agent.run(question, usage_limits=limits)).output
        async with agent.run_stream(question, usage_limits=limits) as result:
            return await result.get_output()

    return ask


if __name__ == "__main__":
    run(make)
