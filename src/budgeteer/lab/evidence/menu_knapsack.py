"""The multiple-choice knapsack: its certified gap, its gain over one option for all, its promise under noise.

Menus of 8 efforts (100 to 1600 tokens) whose values are pass rates ``1 - (1 - p)^k`` of k = 1, 2, ... samples, for 512
questions with p from Beta(0.5, 1); tokens of a sample have a log-std of 0.5. "Noisy": values are seen with an error of
0.2, as from few draws. Values are then the true ones.
"""

from __future__ import annotations

import numpy as np

from budgeteer.allocate import menu_knapsack
from budgeteer.core.allocator import Allocator
from budgeteer.core.plan import I64, Items, Menu
from budgeteer.lab.evidence import ABOVE_ONE, Evidence, declare, measured

QUESTIONS, EFFORTS = 512, 8
BUDGET = "equal tokens: what the same number of samples for all costs"

DECLARED = declare(
    "simulation",
    claims=(
        "certified gap",
        "gain",
        "gain, noisy",
        "promise, noisy",
    ),
)


def experiments() -> list[Evidence]:
    """Certificate, gain, and promise."""
    return [certificate(), gain(0.0), gain(0.2), promise(0.2)]


def certificate(*, n: int = 10_000, allocator: Allocator | None = None, seeds: int = 10) -> Evidence:
    """Certified gap relative to the value, on menus of 32 random options."""
    values = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 18])
        menu = Menu.of(np.sort(rng.integers(1, 1000, (n, 32)), 1), np.sort(rng.random((n, 32)), 1))
        items = Items(tuple(map(str, range(n))), menu=menu)
        plan = (allocator or menu_knapsack()).allocate(200 * n, items, (), rng=rng)
        values.append(plan.gap / plan.value)
    return measured(
        "certified gap",
        values,
        (-1.0, 1e-6),
        claim=f"For {n:,} items with 32 options the certified gap is below 1e-6 of the value, without the exact step",
        baseline="the bound of the linear relaxation",
        budget="200 tokens an item",
    )


def questions(noise: float, seed: int) -> tuple[Items, Items, int]:
    """The items as seen, as they are, and the tokens of three samples for everybody."""
    rng = np.random.default_rng([seed, 19])
    rate = rng.beta(0.5, 1.0, QUESTIONS)
    sample = np.maximum(1, (100 * np.exp(0.5 * rng.standard_normal(QUESTIONS))).astype(np.int64))
    k = np.arange(1, EFFORTS + 1)
    value = 1 - (1 - rate[:, None]) ** k
    seen = value + noise * rng.standard_normal(value.shape)
    keys = tuple(f"q{i:03d}" for i in range(QUESTIONS))
    menus = [Menu.of(sample[:, None] * k, v) for v in (seen, value)]
    return Items(keys, menu=menus[0]), Items(keys, menu=menus[1]), int(3 * sample.sum())


def true_value(items: Items, units: I64) -> float:
    """What the options taken are worth in truth."""
    return float(items.options().at(units)[1].sum())


def gain(noise: float, *, allocator: Allocator | None = None, seeds: int = 20) -> Evidence:
    """Ratio of the true value to that of three samples for everybody."""
    values = []
    for seed in range(seeds):
        seen, true, budget = questions(noise, seed)
        plan = (allocator or menu_knapsack()).allocate(budget, seen, (), rng=np.random.default_rng(seed))
        values.append(true_value(true, plan.units) / true_value(true, np.full(QUESTIONS, 3)))
    how = "values seen with an error of 0.2" if noise else "known values"
    return measured(
        "gain, noisy" if noise else "gain",
        values,
        ABOVE_ONE,
        claim=f"With {how}, the true value exceeds that of three samples for everybody (ratio)",
        baseline="the same option for all",
        budget=BUDGET,
    )


def promise(noise: float, *, seeds: int = 20) -> Evidence:
    """Ratio of the value that the plan promises to the true one: the largest of noisy values is picked."""
    values = []
    for seed in range(seeds):
        seen, true, budget = questions(noise, seed)
        plan = menu_knapsack().allocate(budget, seen, (), rng=np.random.default_rng(seed))
        values.append(plan.value / true_value(true, plan.units))
    return measured(
        "promise, noisy",
        values,
        (0.95, 1.05),
        claim="With values seen with an error of 0.2, the plan's value is within 5 % of the true one (ratio)",
        baseline="the true values of the same plan",
        budget=BUDGET,
    )
