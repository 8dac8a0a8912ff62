"""Hints for recipes that show the first steps of worked solutions, from the data set's column ``solution``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.rl.asked import Wording

COLUMN = "solution"
"""Of the data set: a worked solution, a text of which each line is a step, or a list of the steps."""


def hints_of(tokenizer: Any, rows: Any, solved: bool = True) -> Wording:
    """How the steps of the solutions become tokens at the head of a completion: without any special ones.

    Args:
        tokenizer: of the model.
        rows: data set; without the column, the recipe is refused where it is prepared.
        solved: whether to read the solutions.

    Raises:
        InvalidInput: a solution that is no list of texts, or has none.
    """

    def write(texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return ids

    def ask(texts: Sequence[str]) -> list[list[int]]:
        raise AssertionError("recipes that change the texts of prompts are refused")

    if not solved or COLUMN not in rows.column_names:
        return Wording([""] * len(rows), ask, write)
    solutions = []
    for i, given in enumerate(rows[COLUMN]):
        steps = given.splitlines(keepends=True) if isinstance(given, str) else given
        if not isinstance(steps, list) or not steps or not all(isinstance(step, str) for step in steps):
            raise InvalidInput(
                f"the {COLUMN} in row {i} of the data set is {str(given)[:60]!r}; give a text of which each line is a "
                "step, or a list of the steps, written as the model writes its answers"
            )
        solutions.append(tuple(steps))
    return Wording([""] * len(rows), ask, write, solutions)


def with_solutions(wording: Wording | None, prompts: list[list[int]]) -> list[list[int]]:
    """The prompts' token ids with those of the whole solutions behind them: the longest that a hint makes them."""
    if wording is None or not wording.solutions:
        return prompts
    heads = wording.write(["".join(steps) for steps in wording.solutions])
    return [[*prompt, *head] for prompt, head in zip(prompts, heads, strict=True)]
