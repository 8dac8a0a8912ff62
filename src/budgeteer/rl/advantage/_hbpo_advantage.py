"""Within a budget and between budgets (HBPO, arXiv 2507.15844)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from budgeteer.core.plan import F64
from budgeteer.rl.advantage.kit import group_norm
from budgeteer.rl.reward._hbpo import best

if TYPE_CHECKING:
    from budgeteer.rl.recipe import View
    from budgeteer.rl.rollouts import Rollouts


def hbpo_advantage(rollouts: Rollouts, view: View) -> F64:
    """[n] GRPO's advantage over all rollouts of the prompt, plus, for all rows of a prompt with one target alike, their
    mean reward minus the most that a right answer within that target is worth.

    The second part is 0 where all of these rows are right and within their target, and negative else: under budgets
    that are too small for a prompt, right rows are pushed down with the wrong ones. For the reward ``hbpo`` with
    ``variant=split-budgets``, or with problems that have a ``target``; where nobody gives one, it is half of the cap.
    The paper's code adds the second part twice.
    """
    rows = rollouts.columns(("sampled", "target"), {"target": rollouts.cap / 2})
    pairs = np.stack([rollouts.group, rows.column("target", "hbpo")], axis=1)
    _, part = np.unique(pairs, axis=0, return_inverse=True)
    part = part.reshape(-1)
    mean = np.bincount(part, rollouts.reward) / np.bincount(part)
    return group_norm(rollouts.reward, rollouts.group, len(rollouts.keys)) + mean[part] - best(rows)
