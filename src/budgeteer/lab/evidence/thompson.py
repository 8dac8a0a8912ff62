"""Thompson sampling (arXiv 1111.1797, with costs 1505.00146): more reward than uniform from the same tokens?

20 items with success rates from Beta(1, 3); 200 units' worth of tokens a round, 10 rounds, the posterior starting flat.
Costs are 10 tokens, or 10 * exp(normal) where they differ. Rewards are draws of 0 or 1.
"""

from __future__ import annotations

import numpy as np

from budgeteer.allocate import thompson, uniform
from budgeteer.core.allocator import Allocator
from budgeteer.core.plan import ENDED, F64, Items, Outcomes
from budgeteer.lab.evidence import ABOVE_ONE, BELOW_ONE, Evidence, Region, declare, measured

ITEMS, ROUNDS, UNITS = 20, 10, 200

DECLARED = declare(
    "simulation",
    claims=(
        "reward",
        "reward, costs differ",
        "share of the best item's reward, 10 rounds",
        "share of the best item's reward, 100 rounds",
    ),
    controls=(
        "reward, alike",
        "reward, one round",
    ),
)


def experiments() -> list[Evidence]:
    """All of Thompson sampling's experiments."""
    return [
        gain(),
        gain(spread=1.0),
        gain(alike=True, seeds=100),
        gain(rounds=1, seeds=100),
        of_the_best(rounds=ROUNDS),
        of_the_best(rounds=10 * ROUNDS),
    ]


def play(allocator: Allocator, rate: F64, cost: F64, rounds: int, budget: int, seed: int) -> float:
    """Reward of all units bought in ``rounds`` rounds of ``budget`` tokens."""
    items = Items(tuple(f"q{i:02d}" for i in range(len(rate))), cost)
    rng, state, total = np.random.default_rng([seed, 31]), allocator.init(items), 0.0
    for _ in range(rounds):
        units = allocator.allocate(budget, items, state, rng=rng).units
        rows = np.repeat(np.arange(len(rate)), units)
        reward = (rng.random(len(rows)) < rate[rows]).astype(np.float64)
        total += float(reward.sum())
        status = np.full(len(rows), ENDED, np.int8)
        keys = tuple(items.keys[i] for i in rows)
        state = allocator.observe(state, Outcomes(keys, rows * 0, reward, reward * 0, status))
    return total


def population(seed: int, alike: bool = False, spread: float = 0.0) -> tuple[F64, F64]:
    """Success rates and costs [ITEMS]."""
    rng = np.random.default_rng([seed, 32])
    rate = np.full(ITEMS, 0.25) if alike else rng.beta(1.0, 3.0, ITEMS)
    return rate, 10 * np.exp(spread * rng.normal(size=ITEMS))


def gain(
    allocator: Allocator | None = None,
    *,
    alike: bool = False,
    spread: float = 0.0,
    rounds: int = ROUNDS,
    seeds: int = 20,
) -> Evidence:
    """Reward over uniform's at the same tokens. Alike items and a single round are the nulls: nothing to learn from."""
    null, values = alike or rounds == 1, []
    for seed in range(seeds):
        rate, cost = population(seed, alike, spread)
        budget = UNITS * 10 * ROUNDS // rounds
        ours, theirs = (
            play(method, rate, cost, rounds, budget, seed) for method in (allocator or thompson(), uniform())
        )
        values.append((ours - theirs) / (UNITS * ROUNDS) if null else ours / theirs)
    region: Region = (-0.005, 0.005) if null else ABOVE_ONE
    where = "are all 0.25" if alike else "and costs differ" if spread else "differ"
    return measured(
        "reward" + (", alike" if alike else ", costs differ" if spread else ", one round" if null else ""),
        values,
        region,
        claim=f"When success rates {where}, over {rounds} round{'s' * (rounds > 1)}, the reward"
        f" {'a unit is within 0.005 of' if null else 'exceeds'} uniform's ({'difference' if null else 'ratio'})",
        baseline="uniform",
        budget=f"equal tokens, {UNITS * ROUNDS // ITEMS} units an item on average",
    )


def of_the_best(*, rounds: int, seeds: int = 20) -> Evidence:
    """How far it stays below always buying the best item, in many small or few large rounds."""
    values = []
    for seed in range(seeds):
        rate, cost = population(seed)
        budget = UNITS * 10 * ROUNDS // rounds
        values.append(play(thompson(), rate, cost, rounds, budget, seed) / (rate.max() * UNITS * ROUNDS))
    return measured(
        f"share of the best item's reward, {rounds} rounds",
        values,
        (0.8, 1.0) if rounds > ROUNDS else BELOW_ONE,
        claim=f"In {rounds} rounds, the reward is {'above 80 % of' if rounds > ROUNDS else 'below'} that of the best"
        " item alone (share)",
        baseline="the best item, known in advance",
        budget="equal tokens",
    )
