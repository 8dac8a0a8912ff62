"""Reinforce-Ada: draw in rounds, and drop a prompt once its group is good enough."""

from __future__ import annotations

from typing import Literal

import numpy as np

from budgeteer.allocate.kit.solve import Found, fill, lift
from budgeteer.core.allocator import Allocator
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import Items, whole


def elimination(
    round_units: int = 8, exit: Literal["pos", "balance"] = "balance", keep: int = 4, rounds: int = 4
) -> Allocator:
    """One round of successive elimination: ``round_units`` more for every item that has not met its exit rule.

    Call it once a round with the columns ``drawn`` and ``right`` of the step so far (None = nothing drawn) and the
    tokens that are left. An item is out after ``rounds`` rounds or by its exit rule:
    ``pos``: at least one success; ``balance``: at least keep / 2 successes and keep / 2 failures. When the budget does
    not cover all active items, those of a random order get their round, skipping what does not fit. An empty plan
    ends the step. Each round is a rule, not an optimum: ``Plan.value`` and ``gap`` are NaN.

    When it helps: pass rates are unknown and spread, since it needs no prediction: outcomes decide.
    When not: a round costs a full generation latency; and pools that stop on a success over-estimate their pass rate.
    The published gains are at 1.4 to 2.8 times the cost of the baseline; here the budget is a budget.

    Paper: "Reinforce-Ada: An Adaptive Sampling Framework for Reinforce-Style LLM Training", arXiv 2510.04996.

    Args:
        round_units: rollouts a round, >= 1.
        exit: ``"pos"`` or ``"balance"``.
        keep: size of the group that is trained on later, >= 1 (half of it from either class).
        rounds: most rounds an item, >= 1.

    >>> items = Items(("a", "b", "c"), cost=np.full(3, 10.0), drawn=np.array([8, 8, 8]), right=np.array([0, 1, 5]))
    >>> elimination(exit="pos").allocate(1000, items, (), rng=np.random.default_rng(0)).units
    array([8, 0, 0])
    >>> elimination(exit="balance").allocate(1000, items, (), rng=np.random.default_rng(0)).units
    array([8, 8, 0])
    """
    if exit not in ("pos", "balance"):
        raise InvalidInput(f"elimination(exit={exit!r}); the exit rules are 'pos' and 'balance'")
    if min(whole("round_units", round_units), whole("keep", keep), whole("rounds", rounds)) < 1:
        raise InvalidInput(f"elimination got round_units={round_units}, keep={keep}, rounds={rounds}; all must be >= 1")

    def rule(budget: int, items: Items, rng: np.random.Generator) -> Found:
        nothing = np.zeros(len(items), np.int64)
        drawn = nothing if items.drawn is None else items.drawn
        right = nothing if items.right is None else items.right
        wrong = drawn - right
        done = right >= 1 if exit == "pos" else np.minimum(right, wrong) * 2 >= keep
        active = np.flatnonzero(~done & (drawn < rounds * round_units))
        return Found(fill(rng.permutation(active), round_units, items.cost, budget))

    return lift(rule)
