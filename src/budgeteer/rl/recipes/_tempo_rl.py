"""TEMPO."""

from __future__ import annotations

from budgeteer.allocate import uniform
from budgeteer.rl.advantage import tempo
from budgeteer.rl.recipe import Recipe


def tempo_rl() -> Recipe:
    """Uniform rollouts with credit for the tokens at which they part (arXiv 2509.18314)."""
    return Recipe("tempo", uniform(), tempo)
