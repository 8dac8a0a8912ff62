"""One line: which resource serves a request that came.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64


class Greedy:
    """The plan: ``value`` [n, T], and ``bound``, which gives each request its best resource."""

    def __init__(self, value: F64, chance: F64) -> None:
        self.value, self.bound = value, float(chance @ value.max(axis=0))

    def serve(self, time: int, free: NDArray[np.bool_], rng: np.random.Generator) -> int:
        """The free resource of most value for the request; -1 where none is worth anything."""
        worth = np.where(free, self.value[:, time], 0.0)
        return int(worth.argmax()) if worth.max() > 0 else -1


def greedy(value: F64, chance: F64) -> Greedy:
    """Every request that comes takes the free resource of most value.

    Helps when resources are alike; does not when an early request takes what a later one needs more.

    Args:
        value: [n, T] of serving request t with resource i, >= 0.
        chance: [T] in (0, 1], that request t comes.

    Raises:
        InvalidInput: values or chances of another shape or range.

    >>> plan = greedy(np.array([[3.0, 1.0], [2.0, 2.0]]), np.array([0.5, 1.0]))
    >>> plan.bound, plan.serve(0, np.array([True, True]), np.random.default_rng(0))
    (3.5, 0)
    """
    if value.ndim != 2 or not np.all(np.isfinite(value) & (value >= 0)):
        raise InvalidInput(f"values of shape {value.shape}; give [n, T] finite ones of 0 or more")
    if chance.shape != value.shape[1:] or not np.all((chance > 0) & (chance <= 1)):
        raise InvalidInput(f"chances of shape {chance.shape}; give [{value.shape[1]}] above 0, at most 1")
    return Greedy(value.copy(), chance)
