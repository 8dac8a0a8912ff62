"""A value that falls by a factor at every stair (Train Long, Think Short, arXiv 2508.08940)."""

from __future__ import annotations

import math

from budgeteer.core.errors import InvalidInput
from budgeteer.core.schedule import Schedule


def staircase(factor: float = 0.8, stairs: int = 5, least: float = 0.25) -> Schedule:
    """``max(least, factor ** floor(stairs * spent))``: long rollouts first, shorter ones later.

    Helps where an answer has to be found before it can be shortened; does not where short rollouts can find it too.

    Args:
        factor: by which the value falls at each stair, in (0, 1].
        stairs: number of stairs of the run, at least 1.
        least: smallest value, in (0, 1].

    Raises:
        InvalidInput: a value outside these.

    >>> [round(staircase()(spent), 4) for spent in (0.0, 0.19, 0.2, 0.5, 1.0)]
    [1.0, 1.0, 0.8, 0.64, 0.3277]
    """
    if not (0 < factor <= 1 and 0 < least <= 1 and stairs >= 1):
        raise InvalidInput(f"staircase(factor={factor}, stairs={stairs}, least={least}); factor and least in (0, 1]")

    def at(spent: float) -> float:
        return max(least, float(factor ** math.floor(stairs * min(max(spent, 0.0), 1.0) + 1e-9)))

    return at
