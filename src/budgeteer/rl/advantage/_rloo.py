"""The reward minus the mean of the prompt's other rollouts (RLOO, arXiv 2402.14740)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from budgeteer.core.plan import F64
from budgeteer.rl.advantage.kit import history_baseline

if TYPE_CHECKING:
    from budgeteer.rl.recipe import View
    from budgeteer.rl.rollouts import Rollouts


def rloo(rollouts: Rollouts, view: View) -> F64:
    """[n] r_i - mean of the others' rewards = m / (m - 1) (r_i - mean of the group), m its rollouts.

    The baseline does not depend on the row itself, so the gradient is unbiased in groups of any size; the mean over the
    whole group shrinks it by (m - 1) / m, which differs from prompt to prompt where groups are ragged. A rollout that
    is alone has no baseline and gets 0.
    """
    return history_baseline(rollouts.reward, rollouts.group, np.full(len(rollouts.keys), np.nan))
