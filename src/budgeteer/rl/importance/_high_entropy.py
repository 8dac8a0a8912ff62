"""Learn only from the tokens at which the policy hesitated ("Beyond the 80/20 Rule", arXiv 2506.01939)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.rl.recipe import ENTROPY, Importance, View
from budgeteer.rl.rollouts import Rollouts


def high_entropy(share: float = 0.2) -> Importance:
    """Weight 1 for the ``share`` of the step's sampled tokens of largest entropy, 0 for the others.

    The threshold is the quantile over all sampled tokens of the step, as in the paper. Helps where most tokens follow
    from those before them (long reasoning); does not where single facts, which the policy is sure of, are wrong.

    Args:
        share: in (0, 1].

    Raises:
        InvalidInput: a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise InvalidInput(f"high_entropy(share={share}); give a share of the tokens above 0, at most 1")

    def weigh(rollouts: Rollouts, view: View) -> F64:
        assert rollouts.entropy is not None
        known = rollouts.entropy[rollouts.sampled]
        if not len(known):
            return np.zeros(rollouts.tokens.shape)
        least = np.quantile(known, 1 - share, method="higher") if share < 1 else -np.inf
        return np.where(rollouts.sampled & (rollouts.entropy >= least), 1.0, 0.0)

    return Importance(weigh, needs=(ENTROPY,))
