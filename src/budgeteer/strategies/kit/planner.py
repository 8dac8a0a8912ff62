"""A plan of sub-questions: two calls that ask a model for it, and readers that accept whatever it answers."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from budgeteer.solve import Task
from budgeteer.strategies.kit.trace import aside, ask


class Part(NamedTuple):
    """One sub-question.

    Attributes:
        text: the sub-question, as the model reads it.
        credit: weight of its complexity, > 0.
        decay: exponent of its error curve ``credit * tokens^-decay``; only water-filling uses it.
    """

    text: str
    credit: float = 1.0
    decay: float = 1.0


class Decomposition(NamedTuple):
    """The sub-questions in order, and the question's level of difficulty from 1 to 5 (None = unknown)."""

    parts: tuple[Part, ...]
    level: int | None = None


Planner = Callable[[Task], Awaitable[Decomposition]]
"""Task -> its sub-questions; a coroutine function, whose calls are charged to the task."""

SPLIT = (
    "Split this problem into 2 to 5 sub-questions, one a line, numbered. Do not solve it.\n\nProblem: {question}\n"
    "Sub-questions:\n"
)
GRADE = (
    "Grade the problem from 1 (easy) to 5 (hard), then share 100 credits among its sub-questions by difficulty. "
    "Write numbers only: the level, then the credits in order, separated by commas.\n\nProblem: {question}\n"
    "Sub-questions:\n{parts}\nLevel and credits:"
)
_NUMBERED = re.compile(r"^\s*(?:\d+[.):]|[-*])\s*(\S.*?)\s*$", re.MULTILINE)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def model_planner(split_tokens: int = 200, grade_tokens: int = 40) -> Planner:
    """A planner that asks the model with two calls, both charged: for sub-questions, then for level and credits.

    If the answer of a call cannot be read, or the budget does not cover the call, the plan does without it: the whole
    question is the only part, or all parts have equal credits.

    Args:
        split_tokens, grade_tokens: caps of the two calls.
    """

    async def plan(task: Task) -> Decomposition:
        question = task.question.text

        async def call(text: str, most: int, stop: tuple[str, ...], at: int) -> str:
            prompt = aside(task, text)
            keep = task.style.answer_tokens
            return (await ask(task, prompt, most=most, keep=keep, stop=stop, temperature=0.0, stage="plan", at=at)).text

        lines = read_parts(await call(SPLIT.format(question=question), split_tokens, ("\n\n",), 0))
        if len(lines) < 2:
            return Decomposition((Part(question),))
        listed = "\n".join(f"{j}. {line}" for j, line in enumerate(lines, 1))
        level, credits = read_grades(
            await call(GRADE.format(question=question, parts=listed), grade_tokens, ("\n\n",), 1), len(lines)
        )
        return Decomposition(tuple(Part(line, credit) for line, credit in zip(lines, credits, strict=True)), level)

    return plan


def read_parts(text: str) -> list[str]:
    """The first five numbered or bulleted lines.

    >>> read_parts("1. Find x.\\n2) Square it.\\nThat is all.")
    ['Find x.', 'Square it.']
    """
    return _NUMBERED.findall(text)[:5]


def read_grades(text: str, n: int) -> tuple[int | None, list[float]]:
    """The level (None if there is none) and n credits > 0; the credits are equal if the text has not n positive ones.

    >>> read_grades("3: 50, 30, 20", 3)
    (3, [50.0, 30.0, 20.0])
    >>> read_grades("hard", 2)
    (None, [1.0, 1.0])
    """
    numbers = [float(number) for number in _NUMBER.findall(text)[: n + 1]]
    level = int(numbers[0]) if numbers and numbers[0] in (1, 2, 3, 4, 5) else None
    credits = numbers[1:]
    return level, credits if len(credits) == n and min(credits) > 0 else [1.0] * n
