"""The objective of an update: a clipped ratio to the policy that sampled, and a penalty for leaving the start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from budgeteer.rl.ratio._clipped import clipped
from budgeteer.rl.ratio.kit import low_variance

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Loss", "Penalty", "Ratio", "Tokens"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """m tokens of some rows, row by row.

    Attributes:
        logprob: [m] under the policy that learns; the gradient flows through it.
        old: [m] under the policy that sampled; equal to ``logprob`` (without gradient) where the token was not sampled.
        advantage: [m].
        row: [m] number of the row, from 0.
        sampled: [m] whether the policy sampled the token; the others have weight 0 in the loss.
    """

    logprob: Tensor
    old: Tensor
    advantage: Tensor
    row: Tensor
    sampled: Tensor


Ratio = Callable[[Tokens], "Tensor"]
"""tokens -> [m] surrogate to maximise, of each token."""
Penalty = Callable[["Tensor", "Tensor"], "Tensor"]
"""(log-probability [m] under the policy, under the starting policy) -> [m] estimate of their divergence."""


class Loss(NamedTuple):
    """The objective that the update maximises: the weighted sum of ``ratio``, less ``TrainConfig.kl`` times ``kl``.

    Attributes:
        ratio: surrogate of each token.
        kl: divergence from the starting policy; computed only where ``TrainConfig.kl`` is above 0.
    """

    ratio: Ratio = clipped()
    kl: Penalty = low_variance
