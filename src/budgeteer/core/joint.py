"""The Joint protocol: one option a group, for a loss that looks at all groups together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from budgeteer.core.plan import F64, I64

Array = Any
"""A numpy array or a torch tensor."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a joint method chose for N groups of K options.

    Attributes:
        choice: [N] the option of each group, within the budget: the method's result.
        best: [N] of all choices that the loss was asked about, the one of smallest loss; with a loss on changing
            mini-batches that is a lucky batch, and ``choice`` is the one to use.
        loss: of ``best``.
        calls: evaluations of the loss.
        logits: [N, K] at the end, with expected cost equal to the budget; None for a method that keeps none.
    """

    choice: I64
    best: I64
    loss: float
    calls: int
    logits: Array = None


class Joint(Protocol):
    """A function that searches one-hot choices y [N, K] with ``sum cost[i, k_i] <= budget`` for a small loss.

    It evaluates the loss at choices within the budget only, draws from ``rng`` only, leaves its inputs as they are, and
    refuses with InvalidInput costs that are negative or not finite, logits of another shape, a budget that no choice
    meets, and a loss or a gradient that is not finite.
    """

    def __call__(
        self,
        loss: Callable[[Array], tuple[float, Array]],
        cost: F64,
        budget: float,
        start: Array,
        *,
        rng: np.random.Generator,
    ) -> Assignment:
        """Search.

        Args:
            loss: ``y -> (loss, gradient [N, K])``, y of the type of ``start``.
            cost: [N, K] of the options, finite and 0 or more.
            budget: for the summed cost of the options chosen.
            start: [N, K] logits of the options.
            rng: of everything that is drawn.
        """
        ...
