"""DAPO's dynamic sampling (arXiv 2503.14476): a full batch of mixed groups, and what a mixed group costs.

Prompts arrive with the pass rates of the knapsack experiments, in random order; a group has 8 rollouts of 1 token each.
Dynamic sampling draws groups in rounds until 64 are mixed; uniform draws 64 groups. Rewards are sampled.
"""

from __future__ import annotations

import numpy as np

from budgeteer.allocate import dynamic_sampling
from budgeteer.core.allocator import Allocator
from budgeteer.core.plan import Items
from budgeteer.lab.evidence import Evidence, declare, measured
from budgeteer.lab.evidence.knapsack import spread_rates

TARGET, GROUP = 64, 8

DECLARED = declare(
    "simulation",
    claims=("full batch, 16 rounds",),
    must_fail=(
        "full batch, one round",
        "mixed groups a rollout",
    ),
)


def experiments() -> list[Evidence]:
    """Whether the batch is full, and at which price."""
    return [full_batch(), full_batch(after=1), price()]


def rounds(allocator: Allocator, most: int, seed: int) -> tuple[int, int]:
    """Mixed groups and rollouts after at most so many rounds over 512 candidates."""
    rng = np.random.default_rng([seed, 14])
    rate = np.concatenate([spread_rates(rng) for _ in range(4)])
    n = len(rate)
    nothing = np.zeros(n, np.int64)
    items = Items(tuple(f"q{i:03d}" for i in range(n)), np.ones(n), drawn=nothing, right=nothing)
    drawn, right = nothing, nothing
    for _ in range(most):
        units = allocator.allocate(GROUP * n, items, (), rng=rng).units
        if not units.any():
            break
        drawn, right = drawn + units, right + rng.binomial(units, rate)
        items = items.with_columns(drawn=drawn, right=right)
    return int(np.sum((right > 0) & (right < drawn))), int(drawn.sum())


def full_batch(*, after: int = 16, allocator: Allocator | None = None, seeds: int = 40) -> Evidence:
    """Share of the wanted mixed groups that there are after some rounds; one round is uniform's batch."""
    ours = allocator or dynamic_sampling(target=TARGET, group=GROUP)
    values = [rounds(ours, after, seed)[0] / TARGET for seed in range(seeds)]
    return measured(
        f"full batch, {after} rounds" if after > 1 else "full batch, one round",
        values,
        (0.999, 1.001),
        claim=f"After at most {after} round(s), the mixed groups are {TARGET} (share)",
        baseline="the target",
        budget="as many rollouts as the rounds take",
    )


def price(*, allocator: Allocator | None = None, seeds: int = 40) -> Evidence:
    """Mixed groups a rollout, against one round: prompts come in random order, so it cannot be higher."""
    ours = allocator or dynamic_sampling(target=TARGET, group=GROUP)
    values = []
    for seed in range(seeds):
        many, few = rounds(ours, 16, seed), rounds(ours, 1, seed)
        values.append((many[0] / many[1]) / (few[0] / few[1]))
    return measured(
        "mixed groups a rollout",
        values,
        (1.02, float("inf")),
        claim="Mixed groups a rollout exceed uniform's by 2 % or more (ratio)",
        baseline="uniform: the first round alone",
        budget="ratio of groups to rollouts on either side",
    )
