"""D3S."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.rl.importance import down_sampled
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes._grpo import grpo


def d3s() -> Recipe:
    """GRPO on the rollouts and tokens of most signal, few of them at first and all at the end (arXiv 2509.22115)."""
    return replace(grpo(), name="d3s", importance=down_sampled())
