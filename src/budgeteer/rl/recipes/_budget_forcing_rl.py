"""Training under budget forcing."""

from __future__ import annotations

import math
from dataclasses import replace

from budgeteer.core.errors import InvalidInput
from budgeteer.core.steer import Steer
from budgeteer.rl.recipe import Recipe, View
from budgeteer.rl.recipes._grpo import grpo
from budgeteer.steer import budget_forcing


def budget_forcing_rl(most: float = 0.75, minimum: float = 0.0) -> Recipe:
    """GRPO whose rollouts are forced to think between two lengths, as they will be when they are asked
    (arXiv 2510.21398).

    Thinking that reaches ``most`` is closed by force, and where it would close before ``minimum`` it goes on behind a
    "Wait". Forced tokens carry no gradient. What the paper's reward is could not be seen; here it is the verifier's
    score, which ``reward`` replaces.

    Args:
        most, minimum: shares of the cap, 0 <= minimum <= most <= 1.

    Raises:
        InvalidInput: other shares.
    """
    if not 0 <= minimum <= most <= 1:
        raise InvalidInput(f"budget_forcing_rl(most={most}, minimum={minimum}); give 0 <= minimum <= most <= 1")

    def steer(view: View) -> Steer:
        longest, least = (math.floor(share * view.max_tokens + 1e-9) for share in (most, minimum))
        return budget_forcing(max(1, longest), minimum=least)

    return replace(grpo(), name="budget-forcing", steer=steer)
