"""TP-Schedule."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.rl.importance import temporal
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes._grpo import grpo


def tp_schedule() -> Recipe:
    """GRPO that learns from the ends of rollouts first (arXiv 2605.25381)."""
    return replace(grpo(), name="tp-schedule", importance=temporal())
