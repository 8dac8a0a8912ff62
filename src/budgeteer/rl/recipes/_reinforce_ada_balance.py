"""Reinforce-Ada with exit at half right and half wrong."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.allocate import elimination
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes._reinforce_ada_pos import reinforce_ada_pos


def reinforce_ada_balance() -> Recipe:
    """Rounds of 4 rollouts, with exit at half right and half wrong; then 4 balanced ones train (arXiv 2510.04996)."""
    allocator = elimination(round_units=4, exit="balance", keep=4, rounds=4)
    return replace(reinforce_ada_pos(), name="reinforce-ada-balance", allocator=allocator)
