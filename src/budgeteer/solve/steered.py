"""Any strategy with any steer: the requests that sample its traces carry the steer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.core.steer import Steer
from budgeteer.models.chat import Chat
from budgeteer.models.model import INTERNALS, Chunk, Model, Request, Response
from budgeteer.solve.budgeted import Budgeted
from budgeteer.solve.settings import Together
from budgeteer.solve.strategy import Answer, Strategy, Task
from budgeteer.steer.kit import combine

OTHER = frozenset({"plan", "judge"})
"""Stages of calls that write no part of a trace or of its answer, so that no steer is asked about them."""


def steered(strategy: Strategy, steer: Steer) -> Strategy:
    """The strategy with a steer in every request that samples a trace or its answer; it then needs INTERNALS.

    Calls that plan or judge are not steered. Where the strategy's own requests have a steer, both act, the strategy's
    first (:func:`budgeteer.steer.kit.combine`). A strategy that continues a trace in several calls begins the steer
    anew at each, and what the steer calls the cap is that of the call.

    >>> from budgeteer.steer import answered
    >>> from budgeteer.strategies import direct
    >>> sorted(steered(direct(), answered()).needs)
    ['internals']
    """

    async def solve(task: Task) -> Answer:
        return await strategy.solve(_with(task, steer))

    return Strategy(solve, strategy.needs | {INTERNALS}, strategy.models)


def steered_together(strategy: Together, steer: Steer) -> Together:
    """:func:`steered` for a strategy that answers many questions together.

    Raises (before the first call):
        InvalidInput: the model shows no internals.
    """

    async def answers(tasks: Sequence[Task]) -> AsyncIterator[tuple[int, Answer]]:
        for task in tasks[:1]:
            if INTERNALS not in task.model.capabilities:
                raise InvalidInput(
                    f"a steer acts inside the model, and {task.model.name} does not show its internals; leave steer= "
                    f"out, or take a model that is decoded here: reasoner or hf:FOLDER"
                )
        async for answer in strategy([_with(task, steer) for task in tasks]):
            yield answer

    return answers


def _with(task: Task, steer: Steer) -> Task:
    return replace(task, model=Steered(task, steer))


class Steered(Budgeted):
    """The budgeted model of a task, whose requests carry a steer as well. All else is the model's own.

    Args:
        task: the question, its style and its model.
        steer: for the requests that sample a trace or its answer.
    """

    def __init__(self, task: Task, steer: Steer) -> None:
        self._inner, self._steer, self._style = task.model, steer, task.style
        self._asked = task.style.prompt(task.question.text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def other(self, model: Model) -> Budgeted:
        """Another model behind the same budget, whose calls are not steered."""
        return self._inner.other(model)

    async def generate(self, request: Request, *, stage: str = "sample") -> Response:
        """As the model's own, with the steer."""
        return await self._inner.generate(self._bent(request, stage), stage=stage)

    async def stream(self, request: Request, *, stage: str = "sample") -> AsyncIterator[Chunk | Response]:
        """As the model's own, with the steer."""
        async with aclosing(self._inner.stream(self._bent(request, stage), stage=stage)) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                yield piece

    def _bent(self, request: Request, stage: str) -> Request:
        if stage in OTHER:
            return request
        if request.steer is not None:  # the strategy has said how its thinking is closed
            return replace(request, steer=combine(request.steer, self._steer))
        return replace(request, steer=self._steer, close="" if self._closed(request, stage) else self._style.close)

    def _closed(self, request: Request, stage: str) -> bool:
        """Whether the thinking of the trace that a request continues was closed before."""
        prompt, asked, close = request.prompt, self._asked, self._style.close
        if isinstance(prompt, Chat):
            return stage == "answer" or prompt.thinking.on is False or close in prompt.begun
        begun = prompt.removeprefix(asked) if isinstance(asked, str) and prompt.startswith(asked) else ""
        return stage == "answer" or close in begun or prompt.endswith(close)
