"""Train Long, Think Short."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.rl.recipe import Recipe, Schedules
from budgeteer.rl.recipes._grpo import grpo
from budgeteer.rl.reward import triangular
from budgeteer.rl.schedule import staircase


def train_long_think_short() -> Recipe:
    """GRPO under a cap that falls in stairs, with a bonus for half of it as the length (arXiv 2508.08940)."""
    schedules = Schedules(max_tokens=staircase())
    return replace(grpo(), name="train-long-think-short", schedules=schedules, reward=triangular())
