"""ARES."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.rl.fork import Fork
from budgeteer.rl.kl_weight import by_difficulty
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes._grpo import grpo
from budgeteer.rl.reward import ares as hesitating


def ares(window: int = 4, forks: int = 1, easy: float = 0.01, medium: float = 0.01, hard: float = 0.01) -> Recipe:
    """GRPO with a reward for hesitating where prompts are hard, further rollouts from there, and a KL penalty by
    difficulty (arXiv 2510.08457).

    Each rollout goes on once more from the ``forks`` windows of its thinking whose mean entropy is largest, where that
    reaches the mean 95th percentile of the step's rollouts. Reward ``ares``, KL factors by
    :func:`budgeteer.rl.kl_weight.by_difficulty`, which count with ``--kl`` above 0 alone.

    The branches are those that the paper describes; its code has none. Windows are counted anywhere, where the paper
    wants them behind words of control; the KL weight within them is not lowered. Costs one more reading of each row,
    and the tokens of the branches, which are on the bill.

    Args:
        window: tokens of a window, 1 or more.
        forks: further rollouts of each rollout, at most; 1 or more.
        easy, medium, hard: divergence that is allowed, in nats a token, above 0.

    Raises:
        InvalidInput: a value outside these.
    """
    held = by_difficulty(easy, medium, hard)
    return replace(grpo(), name="ares", reward=hesitating(window), branch=Fork(window, forks), kl_weight=held)
