"""One line: what a rollout, or a token of it, is compared with.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

import numpy as np

from budgeteer.core.plan import F64
from budgeteer.rl.recipe import View
from budgeteer.rl.rollouts import Rollouts


def against_the_rest(rollouts: Rollouts, view: View) -> F64:
    """[n] reward minus the mean reward of the other rollouts of its prompt; 0 for a rollout that is alone.

    Formula: A_i = r_i - sum over j != i of r_j / (n - 1).
    Helps when groups are small, for the baseline does not depend on the rollout itself; does not when a prompt has one.
    """
    count = rollouts.counts[rollouts.group]
    total = np.bincount(rollouts.group, rollouts.reward, minlength=len(rollouts.keys))[rollouts.group]
    others = (total - rollouts.reward) / np.maximum(count - 1, 1)
    return np.where(count > 1, rollouts.reward - others, 0.0)
