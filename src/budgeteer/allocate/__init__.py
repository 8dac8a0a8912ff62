"""Allocators: each splits a budget over items that compete for it; also decisions on streams, and joint choices."""

from budgeteer.allocate.budgeted_max_min import budgeted_max_min
from budgeteer.allocate.dual_descent import dual_descent
from budgeteer.allocate.dynamic_sampling import dynamic_sampling
from budgeteer.allocate.elimination import elimination
from budgeteer.allocate.greedy_marginal import greedy_marginal
from budgeteer.allocate.knapsack import knapsack
from budgeteer.allocate.load_balance import load_balance
from budgeteer.allocate.menu_knapsack import menu_knapsack
from budgeteer.allocate.neyman import neyman
from budgeteer.allocate.online_knapsack import online_knapsack
from budgeteer.allocate.online_matching import match, online_matching
from budgeteer.allocate.optimal_design import Bank, optimal_design
from budgeteer.allocate.pivotal import pivotal
from budgeteer.allocate.proportional import proportional
from budgeteer.allocate.riemannian import riemannian
from budgeteer.allocate.selective import selective
from budgeteer.allocate.successive_halving import successive_halving
from budgeteer.allocate.thompson import thompson
from budgeteer.allocate.transforms import cap, floor, min_group, round_to_budget
from budgeteer.allocate.uniform import uniform
from budgeteer.allocate.variance import variance
from budgeteer.allocate.water_filling import water_filling

__all__ = [
    "Bank",
    "budgeted_max_min",
    "cap",
    "dual_descent",
    "dynamic_sampling",
    "elimination",
    "floor",
    "greedy_marginal",
    "knapsack",
    "load_balance",
    "match",
    "menu_knapsack",
    "min_group",
    "neyman",
    "online_knapsack",
    "online_matching",
    "optimal_design",
    "pivotal",
    "proportional",
    "riemannian",
    "round_to_budget",
    "selective",
    "successive_halving",
    "thompson",
    "uniform",
    "variance",
    "water_filling",
]
