"""A bonus for the length that was asked for (Train Long, Think Short, arXiv 2508.08940; RMT, arXiv 2509.24375)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.rl.reward.protocol import Columns, Reward


def triangular(bonus: float = 0.5) -> Reward:
    """The verifier's score plus ``bonus`` times a triangle over the length: 0 at 0, 1 at a target, 0 at twice that.

    With the target B the triangle is ``length / B`` up to B and ``2 - length / B`` from there to 2B. B is what the row
    was asked for (``variant=falling-budget``), or else half of its cap (with ``max_tokens=staircase``). Helps to bring
    lengths to a target; punishes answers that are right and shorter, too.

    Args:
        bonus: 0 or more.

    Raises:
        InvalidInput: a bonus below 0.

    >>> from budgeteer.core.plan import ENDED
    >>> cap, status = np.full(3, 100), np.full(3, ENDED, np.int8)
    >>> asked = {"target": [50, 50, 50]}
    >>> rows = Columns(np.array([1.0, 1.0, 0.0]), np.array([25, 50, 75]), np.zeros(3, np.int64), cap, status, **asked)
    >>> triangular().score((), rows).tolist()
    [1.25, 1.5, 0.25]
    """
    if not bonus >= 0:
        raise InvalidInput(f"triangular(bonus={bonus}); give 0 or more")

    def score(state: object, rows: Columns) -> F64:
        x = rows.length / np.maximum(rows.column("target", "triangular"), 1e-9)
        return np.asarray(rows.correct + bonus * np.clip(np.minimum(x, 2 - x), 0.0, 1.0), np.float64)

    return Reward(score, needs=("target",))
