"""The allocator that may skip items, against exhaustive search."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from budgeteer.allocate import selective
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import Items


def value(units: np.ndarray, p: np.ndarray) -> float:
    """Written from the definition: sum of p (1 - p) times the chance of a mixed group."""
    pairs = zip(units.tolist(), p.tolist(), strict=True)
    return float(sum(q * (1 - q) * (1 - q**n - (1 - q) ** n) for n, q in pairs if n))


def plan_of(p: np.ndarray, cost: np.ndarray, budget: int, low: int, high: int) -> np.ndarray:
    items = Items(tuple(f"i{k}" for k in range(len(p))), cost, pass_rate=p)
    return selective(low, high).allocate(budget, items, (), rng=np.random.default_rng(0)).units


def test_close_to_the_best_of_all_plans():
    rng = np.random.default_rng(3)
    ratios = []
    for _ in range(60):
        p, cost = rng.uniform(0.02, 0.98, 4), rng.integers(5, 30, 4).astype(float)
        budget = int(rng.integers(60, 400))
        best = max(
            value(np.array(menu), p)
            for menu in product((0, 3, 4, 5, 6), repeat=4)
            if float(np.array(menu) @ cost) <= budget
        )
        units = plan_of(p, cost, budget, 3, 6)
        assert float(units @ cost) <= budget
        assert set(units.tolist()) <= {0, 3, 4, 5, 6}
        if best > 0:
            ratios.append(value(units, p) / best)
    # a greedy rule on a knapsack: nearly always the best plan, never far from it
    assert min(ratios) > 0.75
    assert np.mean(ratios) > 0.97


def test_skips_solved_and_hopeless_items():
    p = np.array([0.0, 1.0, 0.5, 0.5])
    assert plan_of(p, np.full(4, 10.0), 10_000, 3, 8).tolist() == [0, 0, 8, 8]


def test_unseen_items_count_as_even_odds():
    p = np.array([np.nan, 0.9])
    assert plan_of(p, np.full(2, 10.0), 30, 3, 8).tolist() == [3, 0]


def test_a_group_of_one_is_refused():
    with pytest.raises(InvalidInput, match="2 <= low"):
        selective(1)
