"""DART's data curation."""

from __future__ import annotations

from budgeteer.allocate import curated
from budgeteer.rl.advantage import grpo_advantage
from budgeteer.rl.importance import high_entropy_steps
from budgeteer.rl.ratio import Loss, truncated
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.replay import success_pool


def dart() -> Recipe:
    """GRPO with fewer rollouts for what is solved, caps from past successes, a pool of these for prompts that fail, and
    gradient at uncertain steps only (arXiv 2509.23866)."""
    return Recipe(
        "dart",
        curated(),
        grpo_advantage,
        importance=high_entropy_steps(),
        loss=Loss(truncated()),
        replay=success_pool(),
    )
