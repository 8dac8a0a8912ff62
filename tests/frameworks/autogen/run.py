"""AutoGen: an AssistantAgent with the client for OpenAI's API."""

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.messages import TextMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient
from scenarios import BASE_URL, MODEL, run

from budgeteer.adapters.autogen import spending


def make(name, tools, budget=None, limit=None, stream=False):
    async def ask(question):
        client = OpenAIChatCompletionClient(model=MODEL, base_url=BASE_URL, api_key="x", max_retries=0)
        agent = AssistantAgent(
            name, client, tools=list(tools), system_message=f"You are {name}.", max_tool_iterations=limit or 999,
            model_client_stream=stream,
        )  # fmt: skip
        if budget:
            spending(agent, budget)
        last = (await agent.run(task=question)).messages[-1]
        return last.content if isinstance(last, TextMessage) else f"[{type(last).__name__}]"

    return ask


if __name__ == "__main__":
    run(make)
