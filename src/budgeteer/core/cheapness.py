"""How cheap something is beside what came before it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def cheapness(costs: F64, known: F64) -> F64:
    """1 - clip((x - q5) / (q95 - q5), 0, 1), with x = sqrt(cost) and q5, q95 the quantiles of sqrt(known); [n].

    Where the quantiles are equal there is nothing to compare, and it is 1/2. Costs of 0 or more.

    >>> cheapness(np.array([0.0, 25.0, 100.0]), np.linspace(0, 10, 101) ** 2).round(3).tolist()
    [1.0, 0.5, 0.0]
    """
    if not len(known):
        return np.full(len(costs), 0.5)
    low, high = np.quantile(np.sqrt(known), (0.05, 0.95))
    if not high > low:
        return np.full(len(costs), 0.5)
    found: F64 = 1 - np.clip((np.sqrt(costs) - low) / (high - low), 0, 1)
    return found
