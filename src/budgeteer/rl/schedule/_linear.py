"""A value that falls on a straight line (Train Long, Think Short, arXiv 2508.08940)."""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput
from budgeteer.core.schedule import Schedule


def linear(least: float = 0.25) -> Schedule:
    """``1 - (1 - least) * spent``: 1 at the start, ``least`` at the end.

    Helps on hard problems, where the paper found a straight fall of the length better than its stairs for accuracy,
    and worse for tokens: it is long for longer.

    Args:
        least: value at the end, in [0, 1].

    Raises:
        InvalidInput: another value.

    >>> [round(linear()(spent), 4) for spent in (0.0, 0.5, 1.0)]
    [1.0, 0.625, 0.25]
    """
    if not 0 <= least <= 1:
        raise InvalidInput(f"linear(least={least}); give 0 to 1")
    return lambda spent: 1.0 - (1.0 - least) * min(max(spent, 0.0), 1.0)
