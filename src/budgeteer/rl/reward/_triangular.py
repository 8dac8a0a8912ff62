"""A bonus for the length that was asked for (Train Long, Think Short, arXiv 2508.08940; RMT, arXiv 2509.24375)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.rl.reward.protocol import Columns, Reward


def triangular(bonus: float = 0.5) -> Reward:
    """The verifier's score plus ``bonus`` times a triangle over the length: 0 at 0, 1 at half the cap, 0 at the cap.

    With the target B = cap / 2 the triangle is ``length / B`` up to B and ``2 - length / B`` from there to 2B, the cap.
    Use it with a schedule of the cap (``max_tokens=staircase``). Helps to bring lengths to a target; punishes answers
    that are right and shorter, too.

    Args:
        bonus: 0 or more.

    Raises:
        InvalidInput: a bonus below 0.

    >>> from budgeteer.core.plan import ENDED
    >>> cap, status = np.full(3, 100), np.full(3, ENDED, np.int8)
    >>> rows = Columns(np.array([1.0, 1.0, 0.0]), np.array([25, 50, 75]), np.zeros(3, np.int64), cap, status)
    >>> triangular().score((), rows).tolist()
    [1.25, 1.5, 0.25]
    """
    if not bonus >= 0:
        raise InvalidInput(f"triangular(bonus={bonus}); give 0 or more")

    def score(state: object, rows: Columns) -> F64:
        x = 2 * rows.length / rows.max_tokens
        return np.asarray(rows.correct + bonus * np.clip(np.minimum(x, 2 - x), 0.0, 1.0), np.float64)

    return Reward(score)
