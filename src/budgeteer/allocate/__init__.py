"""Allocators: each splits a budget of tokens over items that compete for it."""

from budgeteer.allocate.budgeted_max_min import budgeted_max_min
from budgeteer.allocate.dynamic_sampling import dynamic_sampling
from budgeteer.allocate.elimination import elimination
from budgeteer.allocate.greedy_marginal import greedy_marginal
from budgeteer.allocate.knapsack import knapsack
from budgeteer.allocate.menu_knapsack import menu_knapsack
from budgeteer.allocate.neyman import neyman
from budgeteer.allocate.proportional import proportional
from budgeteer.allocate.selective import selective
from budgeteer.allocate.transforms import cap, floor, min_group, round_to_budget
from budgeteer.allocate.uniform import uniform
from budgeteer.allocate.variance import variance
from budgeteer.allocate.water_filling import water_filling

__all__ = [
    "budgeted_max_min",
    "cap",
    "dynamic_sampling",
    "elimination",
    "floor",
    "greedy_marginal",
    "knapsack",
    "menu_knapsack",
    "min_group",
    "neyman",
    "proportional",
    "round_to_budget",
    "selective",
    "uniform",
    "variance",
    "water_filling",
]
