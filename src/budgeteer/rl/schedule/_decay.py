"""A value that falls evenly in its logarithm (RMT, arXiv 2509.24375)."""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput
from budgeteer.core.schedule import Schedule


def decay(rate: float = 0.2, least: float = 0.0) -> Schedule:
    """``max(least, rate ** spent)``: 1 at the start, ``rate`` at the end, without stairs.

    Helps where a staircase's jumps cost a few bad steps each. RMT has it for the length of its reasoning, from 800
    tokens to 160.

    Args:
        rate: value at the end, in (0, 1].
        least: smallest value, in [0, 1].

    Raises:
        InvalidInput: a value outside these.

    >>> [round(decay()(spent), 4) for spent in (0.0, 0.5, 1.0)]
    [1.0, 0.4472, 0.2]
    """
    if not (0 < rate <= 1 and 0 <= least <= 1):
        raise InvalidInput(f"decay(rate={rate}, least={least}); give a rate above 0, and both at most 1")
    return lambda spent: max(least, float(rate ** min(max(spent, 0.0), 1.0)))
