"""What searches of whole choices share: their arguments, and what agents that search pipelines see and say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.joint import Array
from budgeteer.core.plan import F64, I64


class Trial(NamedTuple):
    """A pipeline that was tried.

    Attributes:
        choice: [N] the option of each stage.
        loss: what the evaluation said, smaller is better.
    """

    choice: tuple[int, ...]
    loss: float


class Space(NamedTuple):
    """What an agent may choose from.

    Attributes:
        cost: [N, K] of the options of each stage.
        family: [K] the model of each option; options of one model differ in their number of samples.
        budget: for the summed cost of the options chosen.
    """

    cost: F64
    family: I64
    budget: float

    def of(self, choice: Sequence[int]) -> float:
        """What a pipeline costs."""
        return float(sum(row[k] for row, k in zip(self.cost, choice, strict=True)))


Propose = Callable[[Space, Sequence[Trial], int, np.random.Generator], Sequence[Sequence[int]]]
"""(space, trials so far, how many are wanted, generator) -> pipelines to try next; those that are no choice, were tried
or cost more than the budget are left out."""


def searched(method: str, cost: Array, budget: float, start: Array) -> F64:
    """[N, K] costs of a search that reads no logits, checked with its other arguments.

    Args:
        method: its name, for errors.
        cost: [N, K], finite and >= 0.
        budget: that the cheapest choice has to fit.
        start: [N, K] logits, finite.

    Raises:
        InvalidInput: costs, logits or a budget that cannot be used.
    """
    table, logits = np.asarray(cost, np.float64), np.asarray(start, np.float64)
    if table.ndim != 2 or logits.shape != table.shape or not np.all(np.isfinite(table) & (table >= 0)):
        raise InvalidInput(f"{method} needs finite costs [N, K] >= 0 and logits of their shape; got {table.shape}")
    if not np.all(np.isfinite(logits)):
        raise InvalidInput(f"{method} got logits that are not finite; it does not use them, so give zeros")
    if not table.min(axis=1).sum() <= budget:  # nan, too
        raise InvalidInput(f"a budget of {budget}; the cheapest choice costs {table.min(axis=1).sum():g}")
    return table
