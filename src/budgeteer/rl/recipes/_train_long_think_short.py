"""Train Long, Think Short."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.rl.recipe import Recipe, Schedules
from budgeteer.rl.recipes._grpo import grpo
from budgeteer.rl.reward import triangular
from budgeteer.rl.schedule import staircase
from budgeteer.rl.variant import falling_budget


def train_long_think_short(asked: bool = True) -> Recipe:
    """GRPO with a target length that falls in stairs, said in the prompt and paid for (arXiv 2508.08940).

    Args:
        asked: say it in the prompt. If not, the cap of a rollout falls, to twice the target, and the prompt says
            nothing: for models that do not follow such words, and to save tokens for certain.
    """
    made = replace(grpo(), name="train-long-think-short", reward=triangular())
    return (
        replace(made, variant=falling_budget()) if asked else replace(made, schedules=Schedules(max_tokens=staircase()))
    )
