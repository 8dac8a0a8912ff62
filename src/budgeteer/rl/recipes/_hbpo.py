"""HBPO."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.rl.advantage import hbpo_advantage
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes._grpo import grpo
from budgeteer.rl.reward import hbpo as worth
from budgeteer.rl.variant import split_budgets


def hbpo() -> Recipe:
    """GRPO whose rollouts share out four budgets, with rewards and advantages that tell which a prompt needs
    (arXiv 2507.15844)."""
    return replace(grpo(), name="hbpo", variant=split_budgets(), reward=worth(), advantage=hbpo_advantage)
