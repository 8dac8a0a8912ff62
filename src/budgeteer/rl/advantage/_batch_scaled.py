"""The reward minus its prompt's mean, over one standard deviation of all rollouts (REINFORCE++ with a baseline)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from budgeteer.core.plan import F64
from budgeteer.rl.advantage.kit import group_norm

if TYPE_CHECKING:
    from budgeteer.rl.recipe import View
    from budgeteer.rl.rollouts import Rollouts


def batch_scaled(rollouts: Rollouts, view: View) -> F64:
    """[n] (r_i - mean of the group) / (std of all rows' r_i - mean of their group).

    From arXiv 2501.03262, the variant with a baseline.

    One scale for all prompts: a prompt that is nearly always right is not blown up by its own small deviation. The mean
    over all rows is 0 already, so rows alone, or with equal rewards in their group, get 0. OpenRLHF and verl take mean
    and deviation over tokens, longer rows counting more: there the mean is not 0, and such rows get a gradient.
    """
    centred = group_norm(rollouts.reward, rollouts.group, len(rollouts.keys), scale=False)
    scale = float(np.sqrt(np.mean(centred**2))) if len(centred) else 0.0
    return centred / scale if scale > 1e-8 else np.zeros_like(centred)
