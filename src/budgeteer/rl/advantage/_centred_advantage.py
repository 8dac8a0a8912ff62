"""The reward minus its prompt's mean, without a standard deviation (Dr. GRPO, arXiv 2503.20783)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.core.plan import F64
from budgeteer.rl.advantage.kit import group_norm

if TYPE_CHECKING:
    from budgeteer.rl.recipe import View
    from budgeteer.rl.rollouts import Rollouts


def centred_advantage(rollouts: Rollouts, view: View) -> F64:
    """[n] reward minus the mean of its prompt's rollouts. Large groups would make 1 / std explode."""
    return group_norm(rollouts.reward, rollouts.group, len(rollouts.keys), scale=False)
