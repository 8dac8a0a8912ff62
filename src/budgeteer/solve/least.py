"""The smallest budget with which a strategy calls its model at all: searched without a call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from budgeteer.core.errors import BudgeteerError
from budgeteer.core.meter import Prices
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.ledger.limit import MAX_UNITS
from budgeteer.models.model import Chunk, Model, Request, Response
from budgeteer.solve.budgeted import Budgeted
from budgeteer.solve.strategy import Question, Strategy, Style, Task
from budgeteer.solve.tool import Tool

AMPLE = MAX_UNITS // 4
"""Units that are enough for any call."""


class _Admitted(BaseException):
    """A call was admitted. Not an Exception, so that no strategy handles it as a failure of the model."""


class _Silent:
    """A model that raises _Admitted when it is called, and never answers."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    async def generate(self, request: Request) -> Response:
        raise _Admitted

    async def stream(self, request: Request) -> AsyncIterator[Chunk | Response]:
        raise _Admitted
        yield  # makes it a generator


class _SilentBudgeted(Budgeted):
    """A budgeted model that is silent, as are the others that a strategy asks."""

    def other(self, model: Model) -> Budgeted:
        """The other model, silent."""
        silent: Any = _Silent(model)
        return super().other(silent)


async def least(
    kind: str,
    question: Question,
    strategy: Strategy,
    model: Model,
    style: Style,
    given: Mapping[str, int],
    *,
    seed: int = 0,
    prices: Prices | None = None,
    check: Callable[[str], float] | None = None,
    tools: Callable[[Question], Sequence[Tool]] | None = None,
) -> int | None:
    """The fewest units of a kind with which a strategy calls the model for a question; None if no amount is enough.

    Args:
        kind: one of ``given``; the other kinds are given in plenty.
        question: the question.
        strategy: the strategy.
        model: counts prompts and says what it can do; it is not called.
        style: how to ask.
        given: units per kind that were not enough.
        seed: of the task.
        prices: for money.
        check: the verifier of the task.
        tools: question -> tools of the task.
    """

    async def asks(units: int) -> bool:
        ledger = MemoryLedger()
        amounts = {name: units if name == kind else AMPLE for name in given}
        ledger.open("q", [Limit(name, n) for name, n in amounts.items()])
        with Allowance(ledger, "q", amounts) as allowance:
            silent: Any = _Silent(model)
            try:
                budgeted = _SilentBudgeted(silent, allowance, prices=prices)
                usable = () if tools is None else tuple(tools(question))
                await strategy.solve(Task(question, budgeted, style, seed, check, usable))
            except _Admitted:
                return True
            except BudgeteerError:
                return False
        return False

    low, high = 0, max(1, given[kind])
    while not await asks(high):
        if high >= AMPLE:
            return None
        low, high = high, min(4 * high, AMPLE)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if await asks(middle) else (middle, high)
    return high
