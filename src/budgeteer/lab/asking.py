"""Strategies on the embedded reasoner: many questions at once, each with a budget of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from budgeteer.lab.tasks.base import THINK_END, Environment, Item
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.model import Model
from budgeteer.plan import F64, I64
from budgeteer.solve import Answer, Budgeted, Question, Strategy, Style, Task, derive

STYLE = Style(
    prompt=lambda text: text,
    answer=lambda rest: rest.split("\n", 1)[0] or None,
    close=THINK_END,
    stop=("\n",),
    answer_tokens=5,
)
"""How the embedded reasoner is asked: the bare problem; the answer is the first line after the thinking."""


@dataclass(frozen=True, slots=True)
class Asked:
    """n questions that were asked.

    Attributes:
        answers: [n].
        right: [n] score by the environment.
        output: [n] tokens sampled.
        inputs: [n] tokens read.
    """

    answers: tuple[Answer, ...]
    right: F64
    output: I64
    inputs: I64


def ask(
    model: Model,
    strategy: Strategy,
    environment: Environment,
    items: Sequence[Item],
    *,
    output: int,
    seed: int,
    style: Style = STYLE,
    check: bool = False,
) -> Asked:
    """Ask all questions at the same time, each with a budget of ``output`` sampled tokens.

    Args:
        model: shared; its loop ends with the call.
        check: let the strategy ask the environment's verifier.
    """

    async def one(item: Item) -> tuple[Answer, Budgeted]:
        ledger = MemoryLedger()
        ledger.open("question", [Limit("output", output)])
        budgeted = Budgeted(model, Allowance(ledger, "question", {"output": output}))
        verify = (lambda answer: environment.verify(item, answer)) if check else None
        task = Task(Question(item.key, item.prompt), budgeted, style, derive(seed, item.key), verify)
        return await strategy.solve(task), budgeted

    async def all_of_them() -> list[tuple[Answer, Budgeted]]:
        return await asyncio.gather(*map(one, items))

    found = asyncio.run(all_of_them())
    usage = [budgeted.spend.usage for _, budgeted in found]
    return Asked(
        tuple(answer for answer, _ in found),
        np.array([environment.verify(item, answer.answer) for item, (answer, _) in zip(items, found, strict=True)]),
        np.array([use.output for use in usage]),
        np.array([use.input for use in usage]),
    )
