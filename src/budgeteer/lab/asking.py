"""Strategies in experiments: many questions at once, each with a budget of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from budgeteer.core.environment import Environment, Item
from budgeteer.core.plan import F64, I64
from budgeteer.lab.tasks.base import THINK_END
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.model import Model
from budgeteer.solve import Answer, Budgeted, Question, Strategy, Style, Task, derive
from budgeteer.solve.budgeted import Spend

STYLE = Style(
    prompt=lambda text: text,
    answer=lambda rest: rest.split("\n", 1)[0] or None,
    close=THINK_END,
    stop=("\n",),
    answer_tokens=5,
)
"""How the embedded reasoner is asked: the bare problem; the answer is the first line after the thinking."""


class Case(NamedTuple):
    """A question to a strategy.

    Attributes:
        question: what is asked.
        seed: of the samples.
        check: answer -> score in [0, 1], the verifier that the strategy may ask; None = it has none.
    """

    question: Question
    seed: int
    check: Callable[[str], float] | None = None


def solve_each(
    strategy: Strategy, model: Model, cases: Iterable[Case], style: Style, *, kind: str, budget: int
) -> list[tuple[Answer, Spend]]:
    """Answer all cases at the same time, each with a budget of its own; the answers and what they used, in order.

    The event loop of the model ends with the call.

    Args:
        strategy, model, style: how all cases are answered.
        cases: the questions.
        kind: of the budget's units: ``"output"`` or ``"all"``.
        budget: units of each case.
    """

    async def answered(case: Case) -> tuple[Answer, Spend]:
        ledger = MemoryLedger()
        ledger.open("question", [Limit(kind, budget)])
        charged = Budgeted(model, Allowance(ledger, "question", {kind: budget}))
        return await strategy.solve(Task(case.question, charged, style, case.seed, case.check)), charged.spend

    async def every() -> list[tuple[Answer, Spend]]:
        return await asyncio.gather(*map(answered, cases))

    return asyncio.run(every())


@dataclass(frozen=True, slots=True)
class AskedQuestions:
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
) -> AskedQuestions:
    """Ask all questions at the same time, each with a budget of ``output`` sampled tokens.

    Args:
        check: let the strategy ask the environment's verifier.
    """

    def case(item: Item) -> Case:
        verify = (lambda answer: environment.verify(item, answer)) if check else None
        return Case(Question(item.key, item.prompt), derive(seed, item.key), verify)

    answered = solve_each(strategy, model, map(case, items), style, kind="output", budget=output)
    usage = [spend.usage for _, spend in answered]
    return AskedQuestions(
        tuple(answer for answer, _ in answered),
        np.array([environment.verify(item, answer.answer) for item, (answer, _) in zip(items, answered, strict=True)]),
        np.array([use.output for use in usage]),
        np.array([use.input for use in usage]),
    )
