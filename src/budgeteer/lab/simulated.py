"""A simulated model for experiments: a function writes the text, so that the truth about every question is known."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from budgeteer.check.scripted import Scripted, Write
from budgeteer.core.plan import F64
from budgeteer.lab.asking import Case, solve_each
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.model import PREFIX, SEED, Model
from budgeteer.solve import Answer, Budgeted, Question, Strategy, Style, Task

UNLIMITED = 10**12


class Simulated(Scripted):
    """A scripted model whose tokens are words between blanks, and which reports no log-probabilities.

    Args:
        write: all that would follow the prompt.
        characters: a token is a character.
    """

    name = "simulated"

    def __init__(self, write: Write, *, characters: bool = False) -> None:
        super().__init__(write, capabilities=frozenset({PREFIX, SEED}), characters=characters)


PLAIN = Style(lambda text: text + " ", lambda rest: rest.strip() or None, close="#", stop=("\n",), answer_tokens=2)
"""``question`` -> ``thinking#answer`` and a newline."""


def tasks_of(
    model: Simulated, questions: Iterable[str], seed: int, *, budget: int = UNLIMITED, unit: str = "output"
) -> list[Task]:
    """One task for each question, all with one allowance of a new ledger."""
    ledger = MemoryLedger()
    ledger.open("lab", [Limit(unit, budget)])
    allowance = Allowance(ledger, "lab", {unit: budget})
    return [
        Task(Question(f"{i:04d}", text), Budgeted(model, allowance), PLAIN, seed * 100_003 + i)
        for i, text in enumerate(questions)
    ]


def answers_of(strategy: Strategy, tasks: Sequence[Task]) -> list[Answer]:
    """The answers to the questions, solved one after the other."""

    async def every() -> list[Answer]:
        return [await strategy.solve(task) for task in tasks]

    return asyncio.run(every())


def tokens_of(tasks: Sequence[Task]) -> int:
    """The sum of the output tokens of these tasks."""
    return sum(task.model.spend.usage.output or 0 for task in tasks)


class Run(NamedTuple):
    """Answers of all questions in order, with tokens [n] of input and output and calls [n]."""

    answers: list[Answer]
    input: F64
    output: F64
    calls: F64

    def score(self, references: Iterable[str]) -> F64:
        """1 for each right answer, [n]."""
        return np.array([float(a.answer == r) for a, r in zip(self.answers, references, strict=True)])


def play(
    strategy: Strategy, questions: Iterable[str], style: Style, model: Model, *, budget: int, kind: str, seed: int
) -> Run:
    """Answer each question with a budget of its own, all at the same time.

    Args:
        budget: units a question, of ``kind``: ``"output"`` or ``"all"``.
    """

    cases = (Case(Question(text, text), seed) for text in questions)
    answered = solve_each(strategy, model, cases, style, kind=kind, budget=budget)
    spends = [spend for _, spend in answered]
    return Run(
        [answer for answer, _ in answered],
        np.array([float(s.usage.input or 0) for s in spends]),
        np.array([float(s.usage.output or 0) for s in spends]),
        np.array([float(s.calls) for s in spends]),
    )
