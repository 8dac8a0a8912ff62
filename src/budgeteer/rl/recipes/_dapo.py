"""DAPO's dynamic sampling."""

from __future__ import annotations

from budgeteer.allocate import dynamic_sampling
from budgeteer.rl.advantage import grpo_advantage
from budgeteer.rl.recipe import Pace, Recipe


def dapo() -> Recipe:
    """Dynamic sampling: prompts are replaced until the batch has 16 mixed groups of 8; the extra tokens count
    (arXiv 2503.14476)."""
    return Recipe("dapo", dynamic_sampling(group=8, target=16), grpo_advantage, rounds=4, oversample=3, pace=Pace.RUN)
