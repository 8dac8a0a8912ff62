"""What the strategies that steer a model from inside share: one trace, and the room that its answer has."""

from __future__ import annotations

from budgeteer.core.steer import Steer
from budgeteer.models.model import INTERNALS, STOP, Request
from budgeteer.solve import Answer, Task, derive
from budgeteer.steer import budget_forcing
from budgeteer.steer.kit import combine

NEEDS = frozenset({INTERNALS})
MOST = 4096
"""Tokens of a trace where the budget allows more."""


def with_answer(task: Task, steer: Steer) -> Steer:
    """The steer, and beside it one that closes the thinking when only the room for the style's marker and answer is
    left of a request's cap, so that an answer is always asked for."""
    return combine(budget_forcing(reserve=task.style.answer_tokens), steer)


async def one_trace(task: Task, steer: Steer | None, *, max_tokens: int, temperature: float) -> Answer:
    """Sample one trace with a steer, as long as the budget allows, and read it.

    An answer whose thinking was closed by force is ``stopped_by="budget"``.
    """
    prompt = task.style.prompt(task.question.text)
    most = task.model.afford(prompt, most=max_tokens)
    if not most:
        return Answer(None, "budget")
    request = Request(
        prompt,
        most,
        temperature=temperature,
        stop=task.style.stop,
        seed=derive(task.seed, "trace"),
        steer=steer,
        close=task.style.close,
    )
    choice = (await task.model.generate(request)).choices[0]
    whole = choice.finish == STOP and not choice.forced
    return Answer(task.style.read(choice.text), "done" if whole else "budget", (choice.text,))
