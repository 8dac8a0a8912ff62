"""GSPO."""

from __future__ import annotations

from budgeteer.allocate import uniform
from budgeteer.rl.advantage import grpo_advantage
from budgeteer.rl.ratio import Loss, sequence
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.weight import sequence_mean


def gspo() -> Recipe:
    """Uniform rollouts, one ratio a rollout, every rollout weighs the same (arXiv 2507.18071)."""
    return Recipe("gspo", uniform(), grpo_advantage, token_weight=sequence_mean, loss=Loss(sequence()))
