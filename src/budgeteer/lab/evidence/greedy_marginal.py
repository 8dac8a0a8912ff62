"""Greedy by marginal value: exact where it claims to be, and what it loses elsewhere, against the exact optimum.

Menus of 8 options for 128 items, or for 6. "Samples": concave values and equal steps. "Concave": steps of 20 to 400
tokens. "Rough": costs and values are unrelated, sorted. The budget is a fifth of everything.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from budgeteer.allocate import greedy_marginal, menu_knapsack
from budgeteer.core.allocator import Allocator
from budgeteer.core.plan import Items, Menu
from budgeteer.lab.evidence import Evidence, Region, declare, measured

Shape = Literal["samples", "concave", "rough"]

DECLARED = declare(
    "simulation",
    claims=(
        "samples, 128 items",
        "concave, 128 items",
        "rough, 128 items",
    ),
    must_fail=("rough, 6 items",),
)


def experiments() -> list[Evidence]:
    """From the case in which it is exact to the one in which it should not be used."""
    exact, close = (1 - 1e-12, 1 + 1e-12), (0.99, 1 + 1e-12)
    return [
        share("samples", 128, exact),
        share("concave", 128, close),
        share("rough", 128, close),
        share("rough", 6, close),
    ]


def menu(shape: Shape, n: int, rng: np.random.Generator) -> Menu:
    """Options of n items."""
    gain = np.sort(rng.gamma(1.0, 1.0, (n, 8)), 1)[:, ::-1]
    if shape == "rough":
        return Menu.of(np.sort(rng.integers(20, 2000, (n, 8)), 1), np.sort(rng.random((n, 8)), 1))
    step = np.full((n, 8), 100) if shape == "samples" else rng.integers(20, 400, (n, 1)) * np.ones((1, 8), np.int64)
    return Menu.of(np.cumsum(step, 1), np.cumsum(gain, 1))


def share(shape: Shape, n: int, region: Region, *, allocator: Allocator | None = None, seeds: int = 30) -> Evidence:
    """Share of the optimal value."""
    values = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 17])
        items = Items(tuple(f"q{i:03d}" for i in range(n)), menu=menu(shape, n, rng))
        budget = int(items.options().cost.reshape(n, 8).max(1).sum()) // 5
        ours, best = (
            a.allocate(budget, items, (), rng=rng) for a in (allocator or greedy_marginal(), menu_knapsack(True))
        )
        values.append(ours.value / best.value)
    effect = "is the optimum" if region[0] > 0.999 else "is within 1 % of the optimum"
    return measured(
        f"{shape}, {n} items",
        values,
        region,
        claim=f"On {shape} menus of {n} items, the value {effect} (ratio)",
        baseline="menu_knapsack, exact",
        budget="equal tokens, a fifth of all largest options",
    )
