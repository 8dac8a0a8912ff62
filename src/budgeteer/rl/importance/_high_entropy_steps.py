"""Learn only from the steps at which the policy hesitated (DART, arXiv 2509.23866)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.rl.recipe import ENTROPY, Importance, View
from budgeteer.rl.rollouts import Rollouts


def high_entropy_steps(share: float = 0.8, end: int = 33) -> Importance:
    """Weight 1 for the tokens of the ``share`` of a prompt's steps whose mean entropy is largest, 0 for the others.

    A step is a piece of a rollout up to a token ``end``, that included; the steps of all rollouts of a prompt are
    ranked together. The number kept is rounded up, and steps as uncertain as the last of them stay, too. Steps without
    sampled tokens have weight 0. Helps where rollouts are long and most steps are routine, such as those of agents;
    does not where every step is a fact of its own. The paper's share could not be found: 0.8 is ours.

    Args:
        share: in (0, 1].
        end: id of the token that ends a step; of the embedded reasoner, ``;``.

    Raises:
        InvalidInput: a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise InvalidInput(f"high_entropy_steps(share={share}); give a share of the steps above 0, at most 1")

    def weigh(rollouts: Rollouts, view: View) -> F64:
        assert rollouts.entropy is not None
        ends = (rollouts.tokens == end) & (rollouts.sampled | (rollouts.role > 0))
        step = np.cumsum(ends, axis=1) - ends  # number of the step of each token in its row
        count = int(step.max(initial=0)) + 1
        number = np.arange(len(rollouts))[:, None] * count + step
        own, size = rollouts.sampled, len(rollouts) * count
        tokens = np.bincount(number[own], minlength=size)
        total = np.bincount(number[own], rollouts.entropy[own], minlength=size)
        mean = np.where(tokens > 0, total / np.maximum(tokens, 1), -np.inf).reshape(len(rollouts), count)
        weight = np.zeros(rollouts.tokens.shape)
        for g in range(len(rollouts.keys)):
            rows = np.flatnonzero(rollouts.group == g)
            ranked = np.sort(mean[rows][np.isfinite(mean[rows])])[::-1]
            if len(ranked):
                least = ranked[int(np.ceil(share * len(ranked))) - 1]
                kept = np.take_along_axis(mean[rows], step[rows], axis=1) >= least
                weight[rows] = np.where(kept & own[rows], 1.0, 0.0)
        return weight

    return Importance(weigh, needs=(ENTROPY,))
