"""LlamaIndex: a FunctionAgent with the model for OpenAI's API."""

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI
from scenarios import BASE_URL, MODEL, run

from budgeteer.adapters.llamaindex import spending


def made(tool):
    import inspect

    return FunctionTool.from_defaults(**{"async_fn" if inspect.iscoroutinefunction(tool) else "fn": tool})


def make(name, tools, budget=None, limit=None, stream=False):
    async def ask(question):
        llm = OpenAI(MODEL, api_base=BASE_URL, api_key="x", max_retries=0, additional_kwargs={
            "stream_options": {"include_usage": True}} if stream else {})  # fmt: skip
        agent = FunctionAgent(
            name=name, system_prompt=f"You are {name}.", tools=[made(tool) for tool in tools], llm=llm,
            streaming=stream, timeout=None,
        )  # fmt: skip
        if budget:
            spending(agent, budget)
        return str(await agent.run(question, max_iterations=limit or 999))

    return ask


if __name__ == "__main__":
    run(make)
