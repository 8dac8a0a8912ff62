"""GRPO that ends a rollout at its answer."""

from __future__ import annotations

from budgeteer.allocate import uniform
from budgeteer.rl.advantage import grpo_advantage
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes.kit import stop_answered


def uniform_answer_stop() -> Recipe:
    """GRPO that ends a rollout once its answer is complete: nothing else changes."""
    return Recipe("uniform-answer-stop", uniform(), grpo_advantage, stop_answered)
