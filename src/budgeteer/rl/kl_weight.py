"""How tightly each row is held to the starting policy: the weight of the KL penalty by difficulty (ARES,
arXiv 2510.08457). NumPy only."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, right
from budgeteer.rl.branch import branched
from budgeteer.rl.reward.kit import band, group_mean

if TYPE_CHECKING:
    from budgeteer.rl.rollouts import Rollouts

__all__ = ["KLWeight", "Leash", "by_difficulty"]

DEAD, CLIP, LEAST, MOST = 0.02, 0.2, 1e-4, 100.0
"""Error that counts as none; largest one of a change; bounds of a factor."""


class KLWeight(NamedTuple):
    """What ``TrainConfig.kl`` is multiplied with, row by row.

    Attributes:
        init: ``() -> state``, which survives JSON.
        weigh: ``(state, rollouts) -> [n]`` factors of the step's verified rows, 0 or more.
        observe: ``(state, rollouts, kl) -> state`` after the update, with the mean divergence [n] of the tokens of each
            row that was trained on, NaN for the others.
    """

    init: Callable[[], Any]
    weigh: Callable[[Any, Rollouts], F64]
    observe: Callable[[Any, Rollouts, F64], Any]


@dataclass(frozen=True, slots=True)
class Leash:
    """State, for easy, medium and hard prompts.

    Attributes:
        weight: [3] factors.
        kl: [3] moving means of the divergence, NaN before there was any.
        error: [3] moving means of how far that is from its target, as a share of it.
        updates: steps so far.
    """

    weight: F64
    kl: F64
    error: F64
    updates: int


def by_difficulty(
    easy: float = 0.01, medium: float = 0.01, hard: float = 0.01, keep: float = 0.97, rate: float = 0.05, every: int = 1
) -> KLWeight:
    """A factor for easy, for medium and for hard prompts, each of which follows its own target of divergence.

    Bands are those of ARES: easy from a pass rate of 2/3 on, medium from 1/3 on. A step moves the mean divergence D of
    a band to ``keep * D + (1 - keep) * (its mean now)``; the error is ``e = D / target - 1``. Every ``every`` steps,
    where abs(e) is 0.02 or more, the mean error moves alike and the factor is multiplied with
    ``exp(rate * clip(error, -0.2, 0.2))``, within 1e-4 and 100: it grows where the policy has moved too far. Factors
    begin at 1, and the first mean is the first divergence.

    Numbers and rule are those of the paper's code, whose targets are equal and which counts parts of a step; there the
    factor of wrong rows of easy prompts that hesitate much is 0.67 of that, which is not here. Helps where hard prompts
    should be explored more freely: give them a larger target. Nothing without ``--kl``.

    Args:
        easy, medium, hard: targets in nats a token, above 0.
        keep: how much of the means a step keeps, in [0, 1).
        rate: of the factor's logarithm, 0 or more.
        every: steps between changes, 1 or more.

    Raises:
        InvalidInput: a value outside these.
    """
    targets = np.array([easy, medium, hard], np.float64)
    if not (np.all((targets > 0) & (targets < math.inf)) and 0 <= keep < 1 and 0 <= rate < math.inf and every >= 1):
        raise InvalidInput(
            f"by_difficulty(easy={easy}, medium={medium}, hard={hard}, keep={keep}, rate={rate}, every={every}); give "
            "targets above 0, a share from 0 to less than 1, a rate of 0 or more and 1 step or more"
        )

    def weigh(state: Leash, rollouts: Rollouts) -> F64:
        return np.asarray(state.weight[_bands(rollouts)], np.float64)

    def observe(state: Leash, rollouts: Rollouts, kl: F64) -> Leash:
        level, known, updates = _bands(rollouts), np.isfinite(kl), state.updates + 1
        weight, mean, error = state.weight.copy(), state.kl.copy(), state.error.copy()
        for d in range(3):
            own = kl[known & (level == d)]
            if not len(own):
                continue
            now = float(own.mean())
            mean[d] = now if np.isnan(mean[d]) else keep * mean[d] + (1 - keep) * now
            off = mean[d] / targets[d] - 1
            if abs(off) >= DEAD and updates % every == 0:
                error[d] = keep * error[d] + (1 - keep) * off
                moved = weight[d] * math.exp(rate * min(max(error[d], -CLIP), CLIP))
                weight[d] = min(max(moved, LEAST), MOST)
        return Leash(weight, mean, error, updates)

    return KLWeight(lambda: Leash(np.ones(3), np.full(3, np.nan), np.zeros(3), 0), weigh, observe)


def _bands(rollouts: Rollouts) -> I64:
    """[n] difficulty of each row's prompt, by its rows that are no branch of another one."""
    whole = ~branched(rollouts)
    rate = group_mean(right(rollouts.verified) * 1.0, rollouts.group, whole)
    return band(rate)
