"""What the agents that search pipelines see and say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

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
