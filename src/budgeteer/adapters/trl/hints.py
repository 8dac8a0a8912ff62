"""Hints for recipes that show the first steps of worked solutions, from the data set's column ``solution``."""

from __future__ import annotations

from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.rl.asked import Wording

COLUMN = "solution"
"""Of the data set: a worked solution, a text of which each line is a step, or a list of the steps."""


def solutions_of(rows: Any) -> list[tuple[str, ...]]:
    """The steps of the solutions, written as the model writes them.

    Args:
        rows: data set with the column.

    Raises:
        InvalidInput: a solution that is no list of texts, or has none.
    """
    solutions = []
    for i, given in enumerate(rows[COLUMN]):
        steps = given.splitlines(keepends=True) if isinstance(given, str) else given
        if not isinstance(steps, list) or not steps or not all(isinstance(step, str) for step in steps):
            raise InvalidInput(
                f"the {COLUMN} in row {i} of the data set is {str(given)[:60]!r}; give a text of which each line is a "
                "step, or a list of the steps, written as the model writes its answers"
            )
        solutions.append(tuple(steps))
    return solutions


def with_solutions(wording: Wording | None, prompts: list[list[int]]) -> list[list[int]]:
    """The prompts' token ids with those of the whole solutions behind them: the longest that a hint makes them."""
    if wording is None or not wording.solutions:
        return prompts
    heads = wording.write(["".join(steps) for steps in wording.solutions])
    return [[*prompt, *head] for prompt, head in zip(prompts, heads, strict=True)]
