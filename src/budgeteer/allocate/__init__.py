"""Allocators: each splits a budget over items that compete for it; also decisions on streams, and joint choices."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.allocate._budgeted_max_min import budgeted_max_min
    from budgeteer.allocate._clear import clear
    from budgeteer.allocate._conformal import conformal
    from budgeteer.allocate._curated import curated
    from budgeteer.allocate._dynamic_sampling import dynamic_sampling
    from budgeteer.allocate._elimination import elimination
    from budgeteer.allocate._greedy_marginal import greedy_marginal
    from budgeteer.allocate._knapsack import knapsack
    from budgeteer.allocate._menu_knapsack import menu_knapsack
    from budgeteer.allocate._neyman import neyman
    from budgeteer.allocate._optimal_design import Bank, optimal_design
    from budgeteer.allocate._pivotal import pivotal
    from budgeteer.allocate._probing import probing
    from budgeteer.allocate._proportional import proportional
    from budgeteer.allocate._selective import selective
    from budgeteer.allocate._successive_halving import successive_halving
    from budgeteer.allocate._thompson import thompson
    from budgeteer.allocate._uniform import uniform
    from budgeteer.allocate._variance import variance
    from budgeteer.allocate._water_filling import water_filling
    from budgeteer.allocate.transforms import cap, floor, round_to_budget

__all__ = [
    "Bank",
    "budgeted_max_min",
    "cap",
    "clear",
    "conformal",
    "curated",
    "dynamic_sampling",
    "elimination",
    "floor",
    "greedy_marginal",
    "knapsack",
    "menu_knapsack",
    "neyman",
    "optimal_design",
    "pivotal",
    "probing",
    "proportional",
    "round_to_budget",
    "selective",
    "successive_halving",
    "thompson",
    "uniform",
    "variance",
    "water_filling",
]

__getattr__ = lazy(
    __name__,
    {
        "Bank": "_optimal_design",
        "budgeted_max_min": "_budgeted_max_min",
        "cap": "transforms",
        "clear": "_clear",
        "conformal": "_conformal",
        "curated": "_curated",
        "dynamic_sampling": "_dynamic_sampling",
        "elimination": "_elimination",
        "floor": "transforms",
        "greedy_marginal": "_greedy_marginal",
        "knapsack": "_knapsack",
        "menu_knapsack": "_menu_knapsack",
        "neyman": "_neyman",
        "optimal_design": "_optimal_design",
        "pivotal": "_pivotal",
        "probing": "_probing",
        "proportional": "_proportional",
        "round_to_budget": "transforms",
        "selective": "_selective",
        "successive_halving": "_successive_halving",
        "thompson": "_thompson",
        "uniform": "_uniform",
        "variance": "_variance",
        "water_filling": "_water_filling",
    },
)
