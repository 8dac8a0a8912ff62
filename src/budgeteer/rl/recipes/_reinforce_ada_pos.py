"""Reinforce-Ada with exit at the first success."""

from __future__ import annotations

from budgeteer.allocate import elimination
from budgeteer.rl.advantage import centred_advantage
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes.kit import balanced


def reinforce_ada_pos() -> Recipe:
    """Rounds of 4 rollouts, with exit at the first success; then 4 balanced ones train (arXiv 2510.04996)."""
    return Recipe(
        "reinforce-ada-pos",
        elimination(round_units=4, exit="pos", keep=4, rounds=4),
        centred_advantage,
        select=balanced(4),
        rounds=4,
    )
