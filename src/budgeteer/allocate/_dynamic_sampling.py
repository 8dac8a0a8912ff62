"""DAPO's dynamic sampling: keep drawing new prompts until enough groups are mixed."""

from __future__ import annotations

import numpy as np

from budgeteer.core.allocator import Allocator, stateless
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import Items, Plan, spend, whole


def dynamic_sampling(*, target: int, group: int = 8) -> Allocator:
    """``group`` units for the next candidates, as many as mixed groups are missing.

    The items are candidates in the order in which they would be drawn: their order is a preference, so this is
    the one allocator that is not permutation-equivariant. Call it once a round with the columns ``drawn`` and ``right``
    (None = nothing drawn). A group is mixed when ``0 < right < drawn``. The next ``target - mixed`` candidates without
    draws get ``group`` units each, in order, up to the first that the budget does not cover (skipping it would
    favour cheap prompts). An empty plan means that the target is reached, or that candidates or tokens ran out.
    A rule, not an optimum: ``Plan.value`` and ``gap`` are NaN.

    When it helps: many groups are all right or all wrong, and a full batch of gradients matters more than tokens.
    When not: tokens are scarce: an all-wrong group costs as much as a mixed one and is thrown away.

    Paper: "DAPO: An Open-Source LLM Reinforcement Learning System at Scale", arXiv 2503.14476.

    Args:
        target: mixed groups wanted in the step, >= 1.
        group: rollouts a candidate, >= 2.

    >>> items = Items(("a", "b", "c", "d"), cost=np.full(4, 10.0),
    ...               drawn=np.array([8, 8, 0, 0]), right=np.array([8, 3, 0, 0]))
    >>> dynamic_sampling(target=2).allocate(1000, items, (), rng=np.random.default_rng(0)).units
    array([0, 0, 8, 0])
    """
    if whole("target", target) < 1 or whole("group", group) < 2:
        raise InvalidInput(
            f"dynamic_sampling(target={target}, group={group}); needs target >= 1, group >= 2 to be mixed"
        )

    def rule(budget: int, items: Items) -> Plan:
        nothing = np.zeros(len(items), np.int64)
        drawn = nothing if items.drawn is None else items.drawn
        right = nothing if items.right is None else items.right
        missing = max(target - int(np.sum((right > 0) & (right < drawn))), 0)
        waiting = np.flatnonzero(drawn == 0)[:missing]
        bill = np.cumsum(group * items.cost[waiting])
        paid = waiting[bill <= budget]
        units = nothing.copy()
        units[paid] = group
        if spend(units, items.cost) > budget:  # the bill of fractional costs was rounded down
            units[paid[-1]] = 0
        return Plan(items.keys, units, spend(units, items.cost))

    return stateless(rule)
