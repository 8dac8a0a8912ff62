"""The reward minus the mean of the prompt's rewards, each weighted by its length (OPO, arXiv 2505.23585)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from budgeteer.core.plan import F64

if TYPE_CHECKING:
    from budgeteer.rl.recipe import View
    from budgeteer.rl.rollouts import Rollouts


def opo(rollouts: Rollouts, view: View) -> F64:
    """[n] r_i - sum of l_j r_j / sum of l_j over the prompt's rollouts, l_j the tokens sampled for row j.

    The baseline of least variance where a rollout's squared gradient grows with its length. It helps where right and
    wrong rollouts differ in length; with equal lengths it is the reward minus the mean. A rollout that is alone, a
    prompt whose rewards are equal and one without a sampled token have 0.
    """
    groups, length = len(rollouts.keys), rollouts.sampled.sum(1).astype(np.float64)
    total = np.bincount(rollouts.group, length, minlength=groups)
    weighted = np.bincount(rollouts.group, length * rollouts.reward, minlength=groups)
    baseline = np.divide(weighted, total, out=np.zeros(groups), where=total > 0)
    above = rollouts.reward - baseline[rollouts.group]
    return np.where(total[rollouts.group] > 0, above, 0.0)
