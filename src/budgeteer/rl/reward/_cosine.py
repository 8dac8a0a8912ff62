"""A cosine over the length: short right answers and long wrong ones are worth more (arXiv 2502.03373)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import CUT, F64, right
from budgeteer.rl.reward.protocol import Columns, Reward


def cosine(
    right_short: float = 2.0,
    right_long: float = 1.0,
    wrong_short: float = -10.0,
    wrong_long: float = 0.0,
    cut: float = -10.0,
) -> Reward:
    """From one value at length 0 to another at the cap L: ``long + (short - long) / 2 * (1 + cos(pi n / L))``.

    A row that reaches its cap, or is cut there, gets ``cut``. The values are the paper's: a wrong answer is worth more
    the longer it is, so that a model that is wrong goes on thinking. What pays for length without a result is filled
    with repetitions, for which the paper has a penalty of its own (add one as a part of a sum).

    Args:
        right_short, right_long: of a right row of no length, and of the whole cap.
        wrong_short, wrong_long: of a wrong row.
        cut: of a row that reaches its cap.

    Raises:
        InvalidInput: a value outside -1e6 to 1e6.

    >>> rows = Columns([1, 0, 1, 0], [50, 50, 100, 0], [0] * 4, [100] * 4, [1] * 4)
    >>> cosine().score((), rows).round(9).tolist()
    [1.5, -5.0, -10.0, -10.0]
    """
    ends = {
        "right_short": right_short, "right_long": right_long, "wrong_short": wrong_short, "wrong_long": wrong_long,
        "cut": cut,
    }  # fmt: skip
    if bad := [f"{name}={value}" for name, value in ends.items() if not abs(value) <= 1e6]:
        raise InvalidInput(f"cosine({', '.join(bad)}); give rewards from -1e6 to 1e6")

    def score(state: object, rows: Columns) -> F64:
        good = right(rows.correct)
        short = np.where(good, right_short, wrong_short)
        long = np.where(good, right_long, wrong_long)
        cap = np.maximum(rows.max_tokens, 1)
        made = long + (short - long) / 2 * (1 + np.cos(np.pi * np.minimum(rows.length / cap, 1.0)))
        return np.where((rows.status == CUT) | (rows.length >= rows.max_tokens), cut, made)

    return Reward(score)
