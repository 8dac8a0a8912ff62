"""DUET without its stopping rule."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes._duet import duet


def duet_allocation() -> Recipe:
    """``duet`` without its stopping rule: what the allocation does alone."""
    return replace(duet(), name="duet-allocation", steer=None)
