"""One question, a budget, the embedded reasoner: what the tests of strategies with internals share."""

from __future__ import annotations

import asyncio

from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.model import Model
from budgeteer.models.reasoner import Reasoner
from budgeteer.solve import Answer, Budgeted, Question, Strategy, Style, Task

QUESTION = "Modulo 11, from left to right: 7 + 5 * 3 - 2 * 4 ="
STYLE = Style(
    prompt=lambda text: text,
    answer=lambda rest: rest.split("\n", 1)[0] or None,
    close="</think>",
    stop=("\n",),
    answer_tokens=6,
)


def reasoner() -> Reasoner:
    return Reasoner(slots=16)


def ask(
    strategy: Strategy, model: Model, *, output: int, seed: int = 0, text: str = QUESTION, style: Style = STYLE
) -> tuple[Answer, Budgeted]:
    """Solve one question with at most ``output`` output tokens."""
    ledger = MemoryLedger()
    ledger.open("q", [Limit("output", output)])
    budgeted = Budgeted(model, Allowance(ledger, "q", {"output": output}))

    async def solve() -> Answer:
        return await strategy.solve(Task(Question("q", text), budgeted, style, seed))

    return asyncio.run(solve()), budgeted
