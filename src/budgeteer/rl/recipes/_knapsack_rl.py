"""Knapsack RL."""

from __future__ import annotations

from budgeteer.allocate import knapsack
from budgeteer.rl.advantage import grpo_advantage
from budgeteer.rl.history import Memory
from budgeteer.rl.recipe import Recipe


def knapsack_rl() -> Recipe:
    """Knapsack RL: rollouts by the value of an effective gradient, rates of the last visit (arXiv 2509.25849)."""
    return Recipe("knapsack", knapsack(low=2, high=32), grpo_advantage, memory=Memory(last_only=True))
