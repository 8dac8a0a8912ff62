"""DSPy: ReAct with the model for OpenAI's API; where a stream is asked for, it is awaited instead."""

import asyncio

import dspy
from scenarios import BASE_URL, MODEL, run

from budgeteer.adapters.dspy import spending


def make(name, tools, budget=None, limit=None, stream=False):
    def ask(question):
        lm = dspy.LM(f"openai/{MODEL}", api_base=BASE_URL, api_key="x", cache=False, num_retries=2)
        with dspy.context(lm=lm):
            agent = dspy.ReAct(
                dspy.Signature("question -> answer", f"You are {name}."), list(tools), max_iters=limit or 99
            )
            if budget:
                spending(agent, budget)
            found = asyncio.run(agent.acall(question=question)) if stream else agent(question=question)
        return found.answer

    return ask


if __name__ == "__main__":
    run(make)
