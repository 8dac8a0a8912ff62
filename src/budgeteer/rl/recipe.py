"""A training recipe is a composition: allocator + stopper + advantage + weights + loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from budgeteer.core.allocator import Allocator
from budgeteer.core.plan import F64, I64, Items, Plan
from budgeteer.core.stopper import Stopper
from budgeteer.rl.history import History, Memory
from budgeteer.rl.reward.protocol import Reward
from budgeteer.rl.rollouts import Rollouts
from budgeteer.rl.weight import token_mean


@dataclass(frozen=True, slots=True)
class View:
    """What the parts of a recipe may look at in a step.

    Attributes:
        items: the step's prompts with the estimates of the recipe's memory.
        plan: units of each prompt (zeros before allocation).
        history: everything seen before this step.
        max_tokens: hard cap of a rollout.
    """

    items: Items
    plan: Plan
    history: History
    max_tokens: int


AdvantageFn = Callable[[Rollouts, View], F64]
"""(rollouts, view) -> [n] advantages, aborted rows included."""
RowWeightFn = Callable[[Rollouts, View], F64]
"""(rollouts, view) -> [n] importance weights that multiply the advantages."""
TokenWeightFn = Callable[[I64, I64], F64]
"""(length [n], group [n]) -> [n] weight of each token of a row."""
StopperFn = Callable[[View], Stopper]
"""view of the step -> the stopper of its rollouts."""
SelectFn = Callable[[Rollouts, np.random.Generator], I64]
"""(rollouts, rng) -> indices of the rows that enter the update."""


def no_weight(rollouts: Rollouts, view: View) -> F64:
    """Weight 1 for every row."""
    return np.ones(len(rollouts))


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to spend a step's tokens and to learn from them.

    Attributes:
        name: as on the command line.
        allocator: units per prompt; called ``rounds`` times a step with what is left of the budget.
        advantage, row_weight, token_weight: see the types above.
        reward: what advantages are made of; None = the verifier's score.
        stopper: None = rollouts end by themselves or at the cap.
        memory: how earlier steps become estimates.
        select: which rows enter the update; None = all.
        thin: the larger side of a group trains on at most this many times the rows of the smaller one, reweighted;
            None = all rows train.
        aborted: ``"mask"`` = aborted rows carry no gradient but that of a KL penalty; ``"failure"`` = they are rollouts
            with reward 0.
        weighted_scores: the history's scores use the advantages after importance weights (as DUET's code does).
        kept_lengths: weights of gate-kept rows count in length quantiles.
        rounds: allocation rounds a step.
        oversample: candidate prompts a step, in multiples of the batch.
        pace: ``"step"`` = an equal share of what is left for every step to come; ``"run"`` = a step takes what its
            allocator wants and the run ends when the budget does.
        clip: lower and upper bound of the ratio's clip.
    """

    name: str
    allocator: Allocator
    advantage: AdvantageFn
    stopper: StopperFn | None = None
    row_weight: RowWeightFn = no_weight
    token_weight: TokenWeightFn = token_mean
    memory: Memory = field(default_factory=Memory)
    select: SelectFn | None = None
    thin: float | None = None
    aborted: str = "mask"
    weighted_scores: bool = False
    kept_lengths: bool = False
    rounds: int = 1
    oversample: int = 1
    pace: str = "step"
    clip: tuple[float, float] = (0.2, 0.28)
    reward: Reward | None = None
