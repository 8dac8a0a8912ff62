"""The prompt says what share of the usual thinking is allowed (Adaptive Effort Control, e1, arXiv 2510.27042)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.plan import F64
from budgeteer.rl.reward.kit import group_mean
from budgeteer.rl.reward.protocol import Columns, Reward


def e1() -> Reward:
    """The verifier's score if the thinking is no longer than the effort allows, else 0.

    ``r_i = correct_i * [l_i <= effort_i * T]`` with l the tokens before the one that closes the thinking (all of them
    where nothing closes it) and T their mean over the prompt's rollouts; at effort 1 it is the verifier's score.

    T is measured on the same prompts, effort text included, so that efforts below 1 shorten the thinking at every step:
    mix prompts of effort 1 in, and stop when lengths are where you want them. Helps to sell thinking by a number that
    fits easy and hard prompts alike; a group of which every row is too long teaches nothing.

    >>> rows = Columns([1, 1, 1, 0], [9, 5, 6, 2], [0] * 4, [9] * 4, [1] * 4, closed=[7, 4, -1, 2], effort=[0.8] * 4)
    >>> e1().score((), rows).tolist()
    [0.0, 1.0, 0.0, 0.0]
    """

    def score(state: object, rows: Columns) -> F64:
        closed, effort = rows.column("closed", "e1"), rows.column("effort", "e1")
        thinking = np.where(closed >= 0, closed - 1, rows.length)
        within = (effort >= 1) | (thinking <= effort * group_mean(thinking, rows.group) + 1e-9)
        return np.where(within, rows.correct, 0.0)

    return Reward(score, needs=("closed", "effort"))
