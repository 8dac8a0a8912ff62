"""Every token of the batch weighs the same (DAPO, arXiv 2503.14476)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.plan import F64, I64

__all__ = ["token_mean"]


def token_mean(length: I64, group: I64) -> F64:
    """[n] weight of each token of row i: 1 / (tokens of the batch). Long rows and large groups weigh more.

    >>> token_mean(np.array([1, 3]), np.array([0, 0])).tolist()
    [0.25, 0.25]
    """
    return np.full(len(length), 1.0 / max(int(length.sum()), 1))
