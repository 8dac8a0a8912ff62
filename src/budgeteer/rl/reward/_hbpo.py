"""What a right answer is worth within and beyond the budget that it was told (HBPO, arXiv 2507.15844)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.plan import F64, right
from budgeteer.rl.reward.protocol import Columns, Reward

BETA = 4.0
"""Reward of a right answer of no length."""


def best(rows: Columns) -> F64:
    """[n] what a right answer within its target b is worth: ``BETA * cos(pi b / (2 L))``, L = the cap."""
    return np.asarray(BETA * np.cos(np.pi * rows.column("target", "hbpo") / (2 * _room(rows)[1])), np.float64)


def hbpo() -> Reward:
    """``BETA cos(pi b / (2 L))`` for a right answer of n <= b tokens, ``BETA cos(pi n / (2 L)) - |n - b| / L`` for a
    longer one, 0 for a wrong one; b = the target, n = the tokens that were sampled, L = their cap.

    Short right answers are worth most under a small budget, long ones under a large one, so that prompts part by the
    length that they need. Use it with ``variant=split-budgets`` and ``advantage=hbpo``. Helps where lengths differ by
    what a prompt needs; wrong answers of all lengths are worth 0, so hard prompts learn nothing about length, and right
    ones near the cap with a small target are worth less than that (down to -1). The form is the paper's; its code takes
    the smaller of the two for every right answer.

    >>> length, sampled = np.array([20, 60, 20]), np.arange(60) < [[20], [60], [20]]
    >>> rows = Columns([1, 1, 0], length, [0] * 3, [80] * 3, [1] * 3, target=[40] * 3, sampled=sampled * 1)
    >>> hbpo().score((), rows).round(4).tolist()
    [2.8284, 1.2807, 0.0]
    """

    def score(state: object, rows: Columns) -> F64:
        n, cap = _room(rows)
        target = rows.column("target", "hbpo")
        beyond = BETA * np.cos(np.pi * n / (2 * cap)) - np.abs(n - target) / cap
        return np.where(right(rows.correct), np.where(n <= target, best(rows), beyond), 0.0)

    return Reward(score, needs=("sampled", "target"))


def _room(rows: Columns) -> tuple[F64, F64]:
    """[n] sampled tokens and [n] their cap, without what stands at the head of an answer."""
    n = rows.column("sampled", "hbpo").sum(axis=1).astype(np.float64)
    return n, np.maximum(rows.max_tokens - (rows.length - n), 1.0)
