"""One line: how the method searches a choice for one loss of all groups together.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.joint import Array, Assignment
from budgeteer.core.plan import F64


def random_search(
    loss: Callable[[Array], tuple[float, Array]],
    cost: F64,
    budget: float,
    start: Array,
    *,
    rng: np.random.Generator,
    tries: int = 50,
) -> Assignment:
    """The best of the cheapest choice and of ``tries`` random ones that fit the budget.

    Helps when a baseline is wanted that any search has to beat; does not when few random choices fit the budget.

    Args:
        loss, cost, budget, start, rng: see ``budgeteer.core.joint.Joint``.
        tries: random choices, >= 0.

    Raises:
        InvalidInput: costs, logits, a budget or a loss that cannot be used.

    >>> worth = np.array([[1.0, 3.0], [1.0, 2.0]])
    >>> cost, none = np.array([[1.0, 2.0], [1.0, 2.0]]), np.zeros((2, 2))
    >>> found = random_search(lambda y: (-(worth * y).sum(), -worth), cost, 3.0, none, rng=np.random.default_rng(0))
    >>> found.choice.tolist()
    [1, 0]
    """
    if not np.all(np.isfinite(cost) & (cost >= 0)):
        raise InvalidInput("a cost is negative or not finite; give finite costs of 0 or more")
    if np.shape(start) != cost.shape or not np.all(np.isfinite(np.asarray(start))):
        raise InvalidInput(f"the logits have the shape {np.shape(start)}; give finite ones of the costs' {cost.shape}")
    if not cost.min(axis=1).sum() <= budget:  # nan, too
        raise InvalidInput(f"no choice costs as little as {budget}; the cheapest costs {cost.min(axis=1).sum():g}")
    n, k = cost.shape
    best, lowest, calls = cost.argmin(axis=1), np.inf, 0
    for turn in range(tries + 1):
        choice = rng.integers(0, k, n) if turn else best
        if cost[np.arange(n), choice].sum() > budget:
            continue
        value, _ = loss(np.eye(k)[choice])
        if not np.isfinite(value):
            raise InvalidInput(f"the loss is {value}; give a finite one")
        calls += 1
        best, lowest = (choice, float(value)) if value < lowest else (best, lowest)
    return Assignment(best, best, lowest, calls)
