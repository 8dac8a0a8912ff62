"""Whole groups whose rollouts add up to a multiple of what a trainer's mini-batches take."""

from __future__ import annotations

import numpy as np

from budgeteer.core.plan import F64, I64


def to_multiple(units: I64, cost: F64, budget: float, multiple: int, least: int) -> I64:
    """Numbers of rollouts near ``units`` whose sum is the largest multiple that plan and budget allow.

    A prompt has none or at least ``least``. The groups shrink in proportion; where there are too few rollouts for all,
    those that should have had the fewest get none.

    Args:
        units: [n] rollouts that an allocator wants.
        cost: [n] tokens of a rollout of each prompt.
        budget: that the numbers must not cost more than.
        multiple: of which the sum is one, >= 1.
        least: rollouts of a prompt that has any, >= 1.

    Returns:
        [n] numbers; all 0 where not even one multiple fits.

    >>> to_multiple(np.array([6, 1, 3, 0]), np.ones(4), 10, 4, 2).tolist()
    [4, 2, 2, 0]
    """
    for total in range(int(units.sum()) // multiple * multiple, 0, -multiple):
        fitted = _fitted(units, total, least)
        if fitted is not None and float(fitted @ cost) <= budget:
            return fitted
    return np.zeros_like(units)


def _fitted(units: I64, total: int, least: int) -> I64 | None:
    """``total`` rollouts in groups of ``least`` or more, in proportion to ``units``; None if there are fewer."""
    wanted = units * (total / units.sum())
    order = np.argsort(-wanted, kind="stable")[: min(total // least, int((units > 0).sum()))]
    if not len(order):
        return None
    share = wanted[order]
    count = np.maximum(np.floor(share).astype(np.int64), least)
    while (missing := total - int(count.sum())) != 0:
        gap = share - count
        if missing > 0:
            at = np.argsort(-gap, kind="stable")[:missing]  # the most wanted first, one each
            count[at] += 1
        else:
            free = np.flatnonzero(count > least)
            at = free[np.argsort(gap[free], kind="stable")][:-missing]
            count[at] -= 1
    made = np.zeros_like(units)
    made[order] = count
    return made
