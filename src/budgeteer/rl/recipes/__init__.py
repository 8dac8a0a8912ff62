"""Recipes: each a composition of parts, one a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.rl.recipes._dapo import dapo
    from budgeteer.rl.recipes._duet import duet
    from budgeteer.rl.recipes._duet_allocation import duet_allocation
    from budgeteer.rl.recipes._duet_published import duet_published
    from budgeteer.rl.recipes._grpo import grpo
    from budgeteer.rl.recipes._knapsack_rl import knapsack_rl
    from budgeteer.rl.recipes._prompt_selection import prompt_selection
    from budgeteer.rl.recipes._reinforce_ada_balance import reinforce_ada_balance
    from budgeteer.rl.recipes._reinforce_ada_pos import reinforce_ada_pos
    from budgeteer.rl.recipes._uniform_answer_stop import uniform_answer_stop
    from budgeteer.rl.recipes._uniform_stop import uniform_stop
    from budgeteer.rl.recipes._untrained import untrained
    from budgeteer.rl.recipes._vip import vip
    from budgeteer.rl.recipes.named import UNTRAINED, get

__all__ = [
    "UNTRAINED",
    "dapo",
    "duet",
    "duet_allocation",
    "duet_published",
    "get",
    "grpo",
    "knapsack_rl",
    "prompt_selection",
    "reinforce_ada_balance",
    "reinforce_ada_pos",
    "uniform_answer_stop",
    "uniform_stop",
    "untrained",
    "vip",
]

__getattr__ = lazy(
    __name__,
    {
        "UNTRAINED": "named",
        "dapo": "_dapo",
        "duet": "_duet",
        "duet_allocation": "_duet_allocation",
        "duet_published": "_duet_published",
        "get": "named",
        "grpo": "_grpo",
        "knapsack_rl": "_knapsack_rl",
        "prompt_selection": "_prompt_selection",
        "reinforce_ada_balance": "_reinforce_ada_balance",
        "reinforce_ada_pos": "_reinforce_ada_pos",
        "uniform_answer_stop": "_uniform_answer_stop",
        "uniform_stop": "_uniform_stop",
        "untrained": "_untrained",
        "vip": "_vip",
    },
)
