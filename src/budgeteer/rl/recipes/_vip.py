"""VIP's allocation by reward variance."""

from __future__ import annotations

from budgeteer.allocate import variance
from budgeteer.rl.advantage import grpo_advantage
from budgeteer.rl.history import Memory
from budgeteer.rl.recipe import Recipe


def vip() -> Recipe:
    """Success-variance allocation, like VIP but with running rates instead of a Gaussian process (2602.01601)."""
    return Recipe("vip", variance(2, 32), grpo_advantage, memory=Memory(decay=0.7, prior=1.0))
