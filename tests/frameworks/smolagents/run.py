"""smolagents: a ToolCallingAgent with the model for OpenAI's API."""

from scenarios import BASE_URL, MODEL, run
from smolagents import OpenAIModel, ToolCallingAgent, tool

from budgeteer.adapters.smolagents import spending


def make(name, tools, budget=None, limit=None, stream=False):
    def ask(question):
        model = OpenAIModel(MODEL, api_base=BASE_URL, api_key="x", client_kwargs={"max_retries": 2})
        agent = ToolCallingAgent(
            [tool(one) for one in tools], model, instructions=f"You are {name}.", max_steps=limit or 99,
            verbosity_level=0, stream_outputs=stream,
        )  # fmt: skip
        if budget:
            spending(agent, budget)
        return agent.run(question)

    return ask


if __name__ == "__main__":
    run(make)
