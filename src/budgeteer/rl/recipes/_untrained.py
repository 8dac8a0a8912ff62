"""The policy that every gain is measured from."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes._grpo import grpo


def untrained() -> Recipe:
    """No training: the starting policy. A run of it takes no step."""
    return replace(grpo(), name="untrained")
