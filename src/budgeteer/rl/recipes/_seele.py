"""SEELE."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.allocate import uniform
from budgeteer.rl.advantage import centred_advantage
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes._grpo import grpo
from budgeteer.rl.variant import seele as hints


def seele(rounds: int = 4, round_units: int = 2, target: float = 0.5) -> Recipe:
    """Rounds of equal groups whose hints bring each prompt to half right, and the reward minus the mean of all rounds
    (arXiv 2509.06923).

    Args:
        rounds: rounds of a step, 1 or more.
        round_units: rollouts a prompt of each round; the budget of a step may buy fewer.
        target: accuracy that hints aim at.
    """
    return replace(
        grpo(),
        name="seele",
        allocator=uniform(round_units),
        advantage=centred_advantage,
        variant=hints(target),
        rounds=rounds,
    )
