"""GRPO."""

from __future__ import annotations

from budgeteer.allocate import uniform
from budgeteer.rl.advantage import grpo_advantage
from budgeteer.rl.recipe import Recipe


def grpo() -> Recipe:
    """Uniform rollouts, group-normalised advantage, token-mean loss (arXiv 2402.03300 with DAPO's loss)."""
    return Recipe("grpo", uniform(), grpo_advantage)
