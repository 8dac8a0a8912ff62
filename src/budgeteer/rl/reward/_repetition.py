"""Less for what is said again: a part to add to rewards that pay for length (arXiv 2502.03373)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.rl.reward.counted import REPEATED
from budgeteer.rl.reward.kit import weights
from budgeteer.rl.reward.protocol import Columns, Reward


def repetition(price: float = 1.0) -> Reward:
    """``-price`` times the share of the row's tokens in 40-grams that stood before, right or not.

    It has no term for being right: add it to another reward, ``reward=cosine+repetition``. (The cosine reward's paper
    penalises each token of a repeated n-gram where it stands; here the row's share is one number.)

    Args:
        price: 0 or more.

    Raises:
        InvalidInput: a price below 0.

    >>> rows = Columns([1, 1], [90, 90], [0, 0], [99] * 2, [1] * 2, repeated=[0.0, 0.5])
    >>> repetition().score((), rows).tolist()
    [0.0, -0.5]
    """
    if not weights(price):
        raise InvalidInput(f"repetition(price={price}); give 0 to 1e6")

    def score(state: object, rows: Columns) -> F64:
        return np.asarray(0.0 - price * rows.column(REPEATED, "repetition"), np.float64)

    return Reward(score, needs=(REPEATED,))
