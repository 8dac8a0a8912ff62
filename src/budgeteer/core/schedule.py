"""Schedules: a hyper-parameter as a function of the share of the budget that is spent, in [0, 1]."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence

from budgeteer.core.errors import InvalidInput

Schedule = Callable[[float], float]
"""``(spent share) -> value``."""


def constant(value: float) -> Schedule:
    """The same value throughout."""
    return lambda spent: value


def piecewise(pieces: Sequence[tuple[float, float]]) -> Schedule:
    """The value of the last piece whose start is reached.

    Args:
        pieces: (start as a spent share, value), by rising start; the first starts at 0.

    >>> piecewise([(0.0, 8), (0.5, 4)])(0.49), piecewise([(0.0, 8), (0.5, 4)])(0.5)
    (8, 4)
    """
    starts = [start for start, _ in pieces]
    if not starts or starts[0] != 0 or any(b <= a for a, b in itertools.pairwise(starts)) or starts[-1] > 1:
        raise InvalidInput(f"piecewise got starts {starts}; they rise from 0 and stay within 1")
    return lambda spent: pieces[bisect.bisect_right(starts, max(spent, 0.0)) - 1][1]


def flat_then_linear(start: float, end: float) -> Schedule:
    """1 up to the spent share ``start``, then straight down to ``end`` at 1.

    >>> [round(flat_then_linear(0.75, 0.1)(spent), 3) for spent in (0.0, 0.75, 0.875, 1.0)]
    [1.0, 1.0, 0.55, 0.1]
    """
    return lambda spent: min(1.0, 1 - (1 - end) * (spent - start) / (1 - start))
