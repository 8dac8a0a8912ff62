"""The reflected exponential schedule (REX, arXiv 2107.04197), for the learning rate of a run with a fixed budget."""

from __future__ import annotations

from budgeteer.core.schedule import Schedule


def rex() -> Schedule:
    """``z / (1/2 + z/2)`` with ``z = 1 - spent``: above a straight line all the way, and steep at the end.

    Helps with small budgets, where a straight line decays too early; against a tuned schedule little is left. The form
    is the paper's; two public ports have others.

    >>> [round(rex()(spent), 4) for spent in (0.0, 0.5, 1.0)]
    [1.0, 0.6667, 0.0]
    """

    def at(spent: float) -> float:
        z = 1 - min(max(spent, 0.0), 1.0)
        return z / (0.5 + 0.5 * z)

    return at
