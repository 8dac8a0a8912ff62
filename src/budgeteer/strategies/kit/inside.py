"""Shared by the strategies that steer a model from inside: one trace, and the tokens that are kept for its answer."""

from __future__ import annotations

from budgeteer.core.steer import Steer
from budgeteer.models.model import INTERNALS, Finish, Request
from budgeteer.solve import Answer, StoppedBy, Task, derive
from budgeteer.steer import budget_forcing
from budgeteer.steer.kit import combine

NEEDS = frozenset({INTERNALS})
MOST = 4096
"""Cap of a trace in tokens, if the budget allows more."""


def with_answer(task: Task, steer: Steer) -> Steer:
    """The steer together with budget forcing, so that an answer is always asked for.

    Budget forcing closes the thinking when only the tokens for the style's marker and answer are left of the cap.
    """
    return combine(budget_forcing(reserve=task.style.answer_tokens), steer)


async def one_trace(task: Task, steer: Steer | None, *, max_tokens: int, temperature: float) -> Answer:
    """Sample one trace with a steer, as long as the budget allows, and read its answer.

    If the steer forced tokens, or the trace reached its cap, the answer is stopped by BUDGET.

    Args:
        task: the question, its style and its budgeted model.
        steer: None = none.
        max_tokens: cap of the trace.
        temperature: of the draws.
    """
    prompt = task.style.prompt(task.question.text)
    most = task.model.afford(prompt, most=max_tokens)
    if not most:
        return Answer(None, StoppedBy.BUDGET)
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
    whole = choice.finish == Finish.STOP and not choice.forced
    return Answer(task.style.read(choice.text), StoppedBy.DONE if whole else StoppedBy.BUDGET, (choice.text,))
