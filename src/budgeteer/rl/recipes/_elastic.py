"""Elastic Reasoning."""

from __future__ import annotations

import math
from dataclasses import replace

from budgeteer.core.errors import InvalidInput
from budgeteer.core.steer import Steer
from budgeteer.rl.recipe import Recipe, View
from budgeteer.rl.recipes._grpo import grpo
from budgeteer.steer import two_budgets


def elastic(think: float = 0.5, answer: float = 0.5) -> Recipe:
    """GRPO whose rollouts have a budget for the thinking and one for the answer (arXiv 2505.05315).

    Thinking that reaches its budget is closed by force, so that an answer always follows; there is no term for length.
    The forced marker carries no gradient here (in the paper's code it does). The paper has 1,024 tokens for each.

    Args:
        think, answer: shares of the cap, above 0, together at most 1.

    Raises:
        InvalidInput: other shares.
    """
    if not (think > 0 and answer > 0 and think + answer <= 1):
        raise InvalidInput(f"elastic(think={think}, answer={answer}); give shares above 0, together at most 1")

    def steer(view: View) -> Steer:
        return two_budgets(*(max(1, math.floor(share * view.max_tokens + 1e-9)) for share in (think, answer)))

    return replace(grpo(), name="elastic", steer=steer)
