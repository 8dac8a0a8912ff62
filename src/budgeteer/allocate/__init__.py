"""Allocators: each splits a budget of tokens over items that compete for it."""

from budgeteer.allocate.dynamic_sampling import dynamic_sampling
from budgeteer.allocate.elimination import elimination
from budgeteer.allocate.knapsack import knapsack
from budgeteer.allocate.neyman import neyman
from budgeteer.allocate.selective import selective
from budgeteer.allocate.transforms import cap, floor, min_group, round_to_budget
from budgeteer.allocate.uniform import uniform
from budgeteer.allocate.variance import variance

__all__ = [
    "cap",
    "dynamic_sampling",
    "elimination",
    "floor",
    "knapsack",
    "min_group",
    "neyman",
    "round_to_budget",
    "selective",
    "uniform",
    "variance",
]
