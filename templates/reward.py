"""One line: what the method rewards beside a right answer.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.rl.reward import Columns, Reward


def brevity(penalty: float = 0.2) -> Reward:
    """The verifier's score, times 1 less ``penalty`` for each cap's worth of tokens.

    Formula: r_i = correct_i * (1 - penalty * length_i / max_tokens_i).
    Helps when right answers come in many lengths; does not when only long ones are right.

    Args:
        penalty: in [0, 1].

    Raises:
        InvalidInput: a penalty outside [0, 1].

    >>> from budgeteer.core.plan import ENDED
    >>> cap, status = np.full(3, 100), np.full(3, ENDED, np.int8)
    >>> rows = Columns(np.array([1.0, 1.0, 0.0]), np.array([50, 100, 10]), np.zeros(3, np.int64), cap, status)
    >>> brevity().score((), rows).tolist()
    [0.9, 0.8, 0.0]
    """
    if not 0 <= penalty <= 1:
        raise InvalidInput(f"brevity(penalty={penalty}); give 0 to 1")

    def score(state: object, rows: Columns) -> F64:
        return np.asarray(rows.correct * (1 - penalty * rows.length / rows.max_tokens), np.float64)

    return Reward(score)
