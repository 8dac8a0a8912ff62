"""Shorter than the prompt's other rollouts (Kimi k1.5, arXiv 2501.12599)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, right
from budgeteer.rl.reward.kit import between, weights
from budgeteer.rl.reward.protocol import Columns, Reward, of_terms


def kimi(weight: float = 1.0) -> Reward:
    """The verifier's score, plus a length term among the rollouts of the prompt.

    With the shortest and the longest of them, ``x = 1/2 - (n - shortest) / (longest - shortest)``; the term is
    ``weight * x`` for a right row and ``weight * min(0, x)`` for a wrong one, 0 for all where all are equally long.

    Helps where a prompt's answers differ in length for no reason. Long wrong answers lose as much as long right ones,
    short wrong ones nothing: on a prompt of which no answer is right, the only thing to learn is to be short. The paper
    begins without the term, and adds it when accuracy no longer grows.

    Args:
        weight: 0 or more.

    Raises:
        InvalidInput: a weight below 0.

    >>> rows = Columns([1, 1, 0, 0], [10, 30, 10, 30], [0] * 4, [99] * 4, [1] * 4)
    >>> kimi().score((), rows).tolist()
    [1.5, 0.5, 0.0, -0.5]
    """
    if not weights(weight):
        raise InvalidInput(f"kimi(weight={weight}); give 0 to 1e6")

    def terms(state: object, rows: Columns) -> dict[str, F64]:
        x = between(rows.length, rows.group)
        length = np.where(right(rows.correct), x, np.minimum(x, 0.0))
        return {"correct": rows.correct, "length": np.asarray(weight * length, np.float64)}

    return of_terms(terms)
