"""Shorter than the reference, and no worse (O1-Pruner, arXiv 2501.12570)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.column import Column, declare
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, right
from budgeteer.rl.reward.kit import group_mean, pass_rate, weights
from budgeteer.rl.reward.protocol import Columns, Reward, of_terms

_GIVE = "put it into the entry of every problem; without it, the prompt's own rollouts stand in"
REFERENCE_LENGTH = declare(
    Column(
        "reference_length",
        "mean tokens of the reference model's rollouts of the prompt",
        _GIVE,
        of_problem=True,
        make=lambda rows: group_mean(rows.length, rows.group),
    ),
    "rollouts",
)
REFERENCE_RATE = declare(
    Column(
        "reference_rate",
        "share of them that is right",
        _GIVE,
        most=1.0,
        of_problem=True,
        needs=("correct",),
        make=pass_rate,
    ),
    "rollouts",
)


def o1_pruner(accuracy: float = 2.0) -> Reward:
    """``reference length / n - 1 + accuracy * (c - reference rate)``: the Length-Harmonizing reward.

    Length and rate are those of the reference model on the prompt, which the paper samples once before training: give
    them with each problem. Where nobody does, those of the prompt's own rollouts stand in, so that the length term
    compares them with each other.

    Helps where a reference is at hand. The length term is paid to wrong answers as well and has no upper bound: a wrong
    answer of a tenth of the reference length gets 9 for it, more than being right is worth.

    Args:
        accuracy: weight of being right, 0 or more; the paper's lambda.

    Raises:
        InvalidInput: a weight below 0.

    >>> given = {"reference_length": [20.0] * 3, "reference_rate": [0.5] * 3}
    >>> rows = Columns([1, 1, 0], [10, 40, 5], [0] * 3, [99] * 3, [1] * 3, **given)
    >>> o1_pruner().score((), rows).tolist()
    [2.0, 0.5, 2.0]
    """
    if not weights(accuracy):
        raise InvalidInput(f"o1_pruner(accuracy={accuracy}); give 0 to 1e6")

    def terms(state: object, rows: Columns) -> dict[str, F64]:
        usual, rate = rows.column(REFERENCE_LENGTH, "o1_pruner"), rows.column(REFERENCE_RATE, "o1_pruner")
        length = np.asarray(usual / np.maximum(rows.length, 1) - 1, np.float64)
        return {"correct": np.asarray(accuracy * (right(rows.correct) - rate), np.float64), "length": length}

    return of_terms(terms, needs=(REFERENCE_LENGTH, REFERENCE_RATE))
