"""Train Long, Think Short."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.rl.recipe import Recipe, Schedules
from budgeteer.rl.recipes._grpo import grpo
from budgeteer.rl.reward import triangular
from budgeteer.rl.schedule import staircase
from budgeteer.rl.variant import falling_budget


def train_long_think_short(asked: bool = False) -> Recipe:
    """GRPO with a bonus for a target length that falls in stairs (arXiv 2508.08940).

    Args:
        asked: say the target in the prompt, as the paper does. If not, the cap of a rollout falls, to twice the target:
            that saves tokens for certain, and suits models that follow no such words, such as the embedded reasoner.
    """
    made = replace(grpo(), name="train-long-think-short")
    if asked:
        return replace(made, variant=falling_budget(), reward=triangular())
    return replace(made, schedules=Schedules(max_tokens=staircase()), reward=triangular(share=0.5))
