"""AnytimeReasoner."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import I64
from budgeteer.rl.advantage import brpo
from budgeteer.rl.branch import Branch
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes._uniform_answer_stop import uniform_answer_stop

__all__ = ["brpo_rl"]


def brpo_rl(cuts: int = 4, samples: int = 4, answer: int = 8, close: str = "</think>") -> Recipe:
    """Rewards of answers at several thinking budgets, so that thinking is of use whenever it ends (arXiv 2505.13438).

    Each rollout is cut at ``cuts`` equal parts of its cap, its thinking is closed there, and ``samples`` answers are
    drawn (the paper: 4 cuts of 8,000 tokens, 4 answers of up to 128).

    Args:
        cuts, samples: 1 or more.
        answer: most tokens of an answer.
        close: text that closes the thinking.

    Raises:
        InvalidInput: a number below 1.
    """
    if min(cuts, samples, answer) < 1:
        raise InvalidInput(f"brpo got cuts={cuts}, samples={samples}, answer={answer}; give 1 or more of each")

    def lengths(cap: int) -> I64:
        parts: I64 = np.unique(np.maximum(1, cap * np.arange(1, cuts + 1) // cuts))
        return parts

    recipe = uniform_answer_stop()
    return Recipe("brpo", recipe.allocator, brpo, recipe.steer, branch=Branch(lengths, samples, answer, close))
