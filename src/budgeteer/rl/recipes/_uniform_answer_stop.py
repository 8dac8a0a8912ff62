"""GRPO that ends a rollout at its answer."""

from __future__ import annotations

from budgeteer.allocate import uniform
from budgeteer.rl.advantage import grpo_advantage
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes.kit import stop_answered
from budgeteer.rl.replay import recent


def uniform_answer_stop(*, replay: int = 0) -> Recipe:
    """GRPO that ends a rollout once its answer is complete: nothing else changes.

    Args:
        replay: steps after its own in which a mixed group is learnt from again; 0 = none. The control of
            ``prompt-selection:replay=1``.
    """
    again = recent(replay) if replay else None
    return Recipe("uniform-answer-stop", uniform(), grpo_advantage, stop_answered, replay=again)
