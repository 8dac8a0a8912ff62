"""GRPO's advantage (arXiv 2402.03300)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.core.plan import F64
from budgeteer.rl.advantage.kit import group_norm

if TYPE_CHECKING:
    from budgeteer.rl.recipe import View
    from budgeteer.rl.rollouts import Rollouts


def grpo_advantage(rollouts: Rollouts, view: View, *, unbiased: bool = False) -> F64:
    """[n] reward minus the mean of its prompt's rollouts, divided by their standard deviation; aborted ones count.

    Args:
        unbiased: divide by the standard deviation of a sample (n - 1), as TRL, verl, SkyRL, slime and OpenRLHF do; else
            by that of a population (n). They differ by sqrt(n / (n - 1)): where groups are ragged, small ones weigh
            less with it.
    """
    return group_norm(rollouts.reward, rollouts.group, len(rollouts.keys), unbiased=unbiased)
