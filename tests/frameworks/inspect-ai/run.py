"""inspect_ai: a loop of its model with tools, the model for OpenAI's API."""

import functools
import inspect

from inspect_ai.model import ChatMessageSystem, ChatMessageUser, get_model
from inspect_ai.tool import ToolDef
from inspect_ai.util import token_limit
from scenarios import BASE_URL, MODEL, TOKENS, run

from budgeteer.adapters.inspect_ai import metered, spending


def waiting(function):
    """Tools of inspect are coroutine functions."""
    if inspect.iscoroutinefunction(function):
        return function

    @functools.wraps(function)
    async def tool(*given, **named):
        return function(*given, **named)

    return tool


def make(name, tools, budget=None, limit=None, stream=False):
    async def ask(question):
        model = get_model(f"openai/{MODEL}", base_url=BASE_URL, api_key="x", memoize=False)
        found = [ToolDef(waiting(one), name=one.__name__).as_tool() for one in tools]
        if budget:
            model, found = spending(model, budget), metered(found, budget)
        said = [ChatMessageSystem(content=f"You are {name}."), ChatMessageUser(content=question)]
        with token_limit(TOKENS if limit else None):
            _, output = await model.generate_loop(said, found)
        return output.completion

    return ask


if __name__ == "__main__":
    run(make)
