"""The reward minus a leave-one-out mean that is shrunk to the prompt's history."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from budgeteer.core.plan import F64
from budgeteer.rl.advantage.kit import history_baseline

if TYPE_CHECKING:
    from budgeteer.rl.recipe import View
    from budgeteer.rl.rollouts import Rollouts


def shrunk_advantage(rollouts: Rollouts, view: View) -> F64:
    """[n] reward minus :func:`budgeteer.rl.advantage.history_baseline` of the prompt's earlier success rate."""
    by_key = dict(zip(view.items.keys, view.items.column("pass_rate", "the shrunk advantage"), strict=True))
    rate = np.array([by_key[key] for key in rollouts.keys])
    rate[view.history.find(rollouts.keys) < 0] = np.nan  # a prediction alone is no baseline
    return history_baseline(rollouts.reward, rollouts.group, rate)
