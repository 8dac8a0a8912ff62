"""The rules of methods that answer many questions from one budget."""

from __future__ import annotations

import asyncio
import random

from budgeteer.check._common import CheckFailed
from budgeteer.check._strategy import answer_rules
from budgeteer.check._toy import ToyModel, toy_style, toy_tools
from budgeteer.check.scripted import ALL
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.solve import Answer, Budgeted, Question, Task, derive
from budgeteer.solve.runner import Together

QUESTIONS = tuple(Question(f"q{i}", f"{i} + {4 - i} =") for i in range(5))
ENOUGH = 200_000
SECONDS = 60
"""After which a method hangs."""


def check_many(many: Together, *, budgets: int = 8, seed: int = 0) -> None:
    """Answer some questions together on a scripted model, and raise :class:`CheckFailed` at the first broken rule.

    Rules: whatever the budget, from 0 up, and also if calls of the model fail, every question is answered exactly once,
    by its position, and nothing is raised; an answer keeps the rules of a strategy's answers; the units spent are
    within the common budget; every call goes through the task's model, and none is left under way; with a large budget
    on a model that answers, every question has an answer; if every call fails, none has; the same seed gives the same
    answers.

    Args:
        many: the method to check.
        budgets: how many random budgets of each kind.
        seed: of the budgets, the model and the tasks.
    """
    rng = random.Random(seed)
    drawn = [int(10 ** rng.uniform(0, 4)) for _ in range(budgets)]
    for kind in ("all", "output"):
        for budget in (0, 1, 2, *drawn):
            _answers(many, ToyModel(ALL, seed=seed), kind, budget, seed)
    middle = sorted(drawn)[budgets // 2]
    for budget in (middle, ENOUGH):
        first, second = (_answers(many, ToyModel(ALL, seed=seed), "all", budget, seed) for _ in range(2))
        if first != second:
            raise CheckFailed(f"the same seed gave {first} and {second}; draw from Task.seed only")
    without = [i for i, answer in first.items() if answer.answer is None]
    if without:
        raise CheckFailed(f"questions {without} have no answer with {ENOUGH:,} tokens on a model that answers")
    for turn, budget in enumerate((*drawn, ENOUGH)):
        _answers(many, ToyModel(ALL, seed=seed + turn, fail=0.5), "all", budget, seed)
    failed = _answers(many, ToyModel(ALL, seed=seed, fail=1.0), "all", ENOUGH, seed)
    if any(answer.answer is not None for answer in failed.values()):
        raise CheckFailed("a question has an answer, and every call of the model failed")


def _answers(many: Together, model: ToyModel, kind: str, budget: int, seed: int) -> dict[int, Answer]:
    """One run, with every rule that holds for all of them."""
    given = f"with a budget of {budget:,} {kind} and {model.fail:.0%} of the calls failing"
    ledger, style = MemoryLedger(), toy_style()
    ledger.open("q", [Limit(kind, budget)])
    root = Allowance(ledger, "q", {kind: budget})
    tasks = [
        Task(question, Budgeted(model, root), style, derive(seed, question.id), tools=toy_tools())
        for question in QUESTIONS
    ]
    answers: dict[int, Answer] = {}

    async def collect() -> int:
        async with asyncio.timeout(SECONDS):
            async for position, answer in many(tasks):
                if position in answers:
                    raise CheckFailed(f"{given} question {position} was answered twice; each exactly once")
                answers[position] = answer
        return len(asyncio.all_tasks()) - 1

    try:
        tasks_left = asyncio.run(collect())
    except CheckFailed:
        raise
    except TimeoutError as error:
        raise CheckFailed(f"{given} it did not end within {SECONDS} s") from error
    except Exception as error:
        raise CheckFailed(
            f"{given} it raised {type(error).__name__}: {error}; answer every question, with None if need be"
        ) from error
    if sorted(answers) != list(range(len(QUESTIONS))):
        raise CheckFailed(f"{given} it answered questions {sorted(answers)} of {len(QUESTIONS)}; each exactly once")
    for answer in answers.values():
        answer_rules(answer, style, given)
    _, state = ledger.snapshot()
    if tasks_left or state.reservations:
        raise CheckFailed(f"{given} it ended with calls under way; await them")
    for name, book in state.accounts["q"].books.items():
        if book.spent > budget:
            raise CheckFailed(f"{given} it spent {book.spent:,} {name}")
    seen = [task.model.spend.usage for task in tasks]
    if model.used > sum((usage.input or 0) + (usage.output or 0) for usage in seen):
        raise CheckFailed(f"{given} calls went past the tasks' models; ask task.model, not the model inside")
    return answers
