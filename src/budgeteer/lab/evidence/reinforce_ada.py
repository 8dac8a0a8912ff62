"""Reinforce-Ada (arXiv 2510.04996): more mixed groups at the SAME rollouts as uniform, which the paper does not test,
and the bias of training on a class-balanced part of the pool.

Elimination draws 8 rollouts a round for up to 4 rounds; uniform then gets the total that it came to use. Spread rates
are those of the knapsack experiments.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from budgeteer.allocate import elimination, uniform
from budgeteer.core.allocator import Allocator
from budgeteer.core.plan import F64, I64, Items
from budgeteer.lab.evidence import ABOVE_ZERO, Evidence, declare, measured
from budgeteer.lab.evidence.knapsack import PROMPTS, spread_rates

Exit = Literal["pos", "balance"]
ROUND, KEEP, ROUNDS = 8, 4, 4

DECLARED = declare(
    "simulation",
    claims=(
        "mixed groups, balance",
        "mixed groups, pos",
        "balanced downsampling, weighted, stopped pools",
        "balanced downsampling, weighted, fixed pools",
    ),
    controls=(
        "mixed groups, balance, null",
        "mixed groups, pos, null",
    ),
    must_fail=("balanced downsampling, unweighted, stopped pools",),
)


def experiments() -> list[Evidence]:
    """All of Reinforce-Ada's experiments."""
    return [
        mixed_groups("balance"),
        mixed_groups("pos"),
        mixed_groups("balance", alike=True),
        mixed_groups("pos", alike=True),
        downsampling(weighted=False),
        downsampling(weighted=True),
        downsampling(weighted=True, stops=False),
    ]


def play(allocator: Allocator, rate: F64, budget: int, seed: int) -> tuple[I64, I64]:
    """Rounds of an allocator against Bernoulli prompts until its plan is empty: (drawn, right), both [n]."""
    rng = np.random.default_rng([seed, 5])
    keys, cost = tuple(f"q{i:03d}" for i in range(len(rate))), np.ones(len(rate))
    drawn, right = np.zeros(len(rate), np.int64), np.zeros(len(rate), np.int64)
    while True:
        items = Items(keys, cost, drawn=drawn, right=right)
        plan = allocator.allocate(budget - int(drawn.sum()), items, allocator.init(items), rng=rng)
        if not plan.units.any():
            return drawn, right
        right = right + rng.binomial(plan.units, rate)
        drawn = drawn + plan.units


def mixed_share(drawn: I64, right: I64) -> float:
    """Share of prompts with a success and a failure among their draws."""
    return float(np.mean((right > 0) & (right < drawn)))


def mixed_groups(exit: Exit, *, alike: bool = False, allocator: Allocator | None = None, seeds: int = 60) -> Evidence:
    """Share of mixed groups, minus that of uniform with the total of rollouts that the elimination came to use."""
    values, totals, shares = [], [], []
    for seed in range(seeds):
        rate = np.full(PROMPTS, 0.2) if alike else spread_rates(np.random.default_rng([seed, 6]))
        method = allocator or elimination(ROUND, exit, KEEP, ROUNDS)
        drawn, right = play(method, rate, ROUND * ROUNDS * PROMPTS, seed)
        total = int(drawn.sum())
        even = play(uniform(), rate, total, seed)
        shares.append((mixed_share(drawn, right), mixed_share(*even)))
        values.append(shares[-1][0] - shares[-1][1])
        totals.append(total / PROMPTS)
    mean = np.mean(shares, axis=0)
    where = "when all rates are 0.2, the share of mixed groups is within 0.01 of"
    return measured(
        f"mixed groups, {exit}" + (", null" if alike else ""),
        values,
        (-0.01, 0.01) if alike else ABOVE_ZERO,
        claim=f"With exit rule {exit}, "
        + (where if alike else "when rates are spread, the share of mixed groups exceeds")
        + " uniform's (difference)",
        baseline="uniform",
        budget="equal rollouts",
        details=[
            {"elimination": float(mean[0]), "uniform": float(mean[1]), "rollouts a prompt": float(np.mean(totals))}
        ],
    )


def downsampling(
    *, weighted: bool, stops: bool = True, p: float = 0.2, seeds: int = 20, prompts: int = 20_000
) -> Evidence:
    """Relative bias of the mean of A * score over a class-balanced part of the pool, on a Bernoulli bandit.

    The success logit's exact gradient is p (1 - p), and its score is r - p. The advantage is r minus the pool's
    mean. ``weighted`` gives each kept sample (class share of the pool) / (class share kept). ``stops`` draws
    the pool with the balance rule, else it is a fixed 32.
    """
    values = []
    for seed in range(seeds):
        rate = np.full(prompts, p)
        if stops:
            drawn, right = play(elimination(ROUND, "balance", KEEP, ROUNDS), rate, ROUND * ROUNDS * prompts, seed)
        else:
            drawn = np.full(prompts, ROUND * ROUNDS)
            right = np.random.default_rng([seed, 7]).binomial(drawn, p)
        wrong = drawn - right
        # Half of the kept group from either class, filled from the other one when short.
        kept_right = np.minimum(right, np.maximum(KEEP // 2, KEEP - wrong))
        kept_wrong = np.minimum(wrong, KEEP - kept_right)
        share = right / drawn if weighted else kept_right / (kept_right + kept_wrong)
        mean = right / drawn
        gradient = share * (1 - mean) * (1 - p) + (1 - share) * (0 - mean) * (0 - p)
        # A class that is missing among the kept has no sample to carry its weight; then the pool has none either,
        # all advantages are 0 and so is this gradient.
        values.append(float(gradient.mean()) / (p * (1 - p)) - 1)
    pool = "pools stopped by the balance rule" if stops else "pools of a fixed 32"
    return measured(
        f"balanced downsampling, {'weighted' if weighted else 'unweighted'}, {'stopped' if stops else 'fixed'} pools",
        values,
        (-0.05, 0.05),
        claim=f"{'With' if weighted else 'Without'} correction weights, on {pool}, the gradient is within 5 % of"
        " the exact one (relative bias)",
        baseline="exact gradient of a Bernoulli bandit, p = 0.2",
        budget=f"{prompts:,} prompts a seed",
    )
