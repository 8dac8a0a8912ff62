"""DUET's control."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.allocate import uniform
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes._duet import duet


def uniform_stop() -> Recipe:
    """The control arm of ``duet``: its stopping rule, loss and baseline, but uniform rollouts."""
    return replace(duet(), name="uniform-stop", allocator=uniform())
