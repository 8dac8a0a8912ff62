"""One line: which parts the recipe puts together, and what for.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

from budgeteer.allocate import uniform
from budgeteer.rl.advantage import grpo_advantage
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes.kit import stop_answered
from budgeteer.rl.reward import overlong


def concise(share: float = 0.5) -> Recipe:
    """Uniform groups whose rollouts end at their answer, and lose reward as they come near their cap.

    Helps when the policy writes more than it needs; does not when the cap is what keeps it from being right.

    Args:
        share: of the cap in which the reward falls, in (0, 1].
    """
    return Recipe("concise", uniform(), grpo_advantage, steer=stop_answered, reward=overlong(share))
