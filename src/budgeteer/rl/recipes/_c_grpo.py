"""C-GRPO."""

from __future__ import annotations

from budgeteer.allocate import conformal
from budgeteer.rl.advantage import grpo_advantage
from budgeteer.rl.recipe import Recipe

GRID = (2, 4, 8, 16)


def c_grpo() -> Recipe:
    """Rounds of 2, 4, 8 and 16 rollouts with exit by conformal thresholds on the pass rate (the package trl-cgrpo,
    https://openreview.net/forum?id=TrdqzzvFCs)."""
    return Recipe("c-grpo", conformal(GRID), grpo_advantage, rounds=len(GRID))
