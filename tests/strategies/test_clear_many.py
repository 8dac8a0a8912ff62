"""CLEAR over questions: who is asked, how long, and what the market's left-over is spent on."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import InvalidInput
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.solve import Answer, Budgeted, Question, StoppedBy, Style, Task
from budgeteer.strategies import clear_many
from budgeteer.strategies._clear_many import _line

STYLE = Style(lambda text: text, lambda text: text.strip()[:1] or None, "=", complete=lambda text: len(text) > 0)


def run(sizes: list[int], budget: int, kind: str = "output", **options: int) -> tuple[dict[int, Answer], Scripted]:
    """Questions of so many letters, whose traces have three times as many."""
    model = Scripted(lambda prompt, rng: "." * (3 * len(prompt) - 2) + "=4")
    ledger = MemoryLedger()
    ledger.open("all", [Limit(kind, budget)])
    allowance = Allowance(ledger, "all", {kind: budget})
    tasks = [Task(Question(f"q{i}", "x" * n), Budgeted(model, allowance), STYLE, 1) for i, n in enumerate(sizes)]

    async def every() -> dict[int, Answer]:
        return {i: answer async for i, answer in clear_many(tasks, **options)}

    return asyncio.run(every()), model


def test_the_short_ones_are_answered_and_the_long_ones_abandoned_without_a_token() -> None:
    sizes = [30, 4, 40, 6, 5, 50, 4, 6]
    answers, model = run(sizes, 3 * sum((4, 6, 5, 4, 6)) + 30, pilot=2)
    assert {i for i, answer in answers.items() if answer.answer == "4"} == {1, 3, 4, 6, 7}
    assert {answers[i].stopped_by for i in (0, 2, 5)} == {StoppedBy.BUDGET}
    assert {len(str(request.prompt)) for request in model.requests} == {4, 5, 6}


def test_enough_for_all_answers_all_and_the_input_is_paid_where_it_counts() -> None:
    sizes = [10, 20, 30, 40, 50]
    for kind, factor in (("output", 3), ("all", 4)):
        answers, _ = run(sizes, factor * sum(sizes) + 60, kind)
        assert {answer.answer for answer in answers.values()} == {"4"}


def test_nothing_buys_nothing_and_wrong_numbers_are_refused() -> None:
    answers, model = run([5, 6], 0)
    assert ([answer.answer for answer in answers.values()], model.requests) == ([None, None], [])
    with pytest.raises(InvalidInput, match="pilot >= 2"):
        run([5], 10, pilot=1)


def test_the_line_is_numpys_and_the_width_twice_the_deviation() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(5, 50, 9)
    y = 4 * x + rng.normal(0, 20, 9)
    predicted, width = _line(x, y, np.array([10.0, 60.0]))
    slope, intercept = np.polyfit(x, y, 1)
    assert predicted == pytest.approx(slope * np.array([10.0, 60.0]) + intercept)
    assert width == pytest.approx(2 * np.sqrt(((y - slope * x - intercept) ** 2).sum() / 7))
    assert _line(np.array([3.0]), np.array([7.0]), np.array([9.0]))[0].tolist() == [7.0]
