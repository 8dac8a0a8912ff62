"""Apriel-Reasoner's mixing of domains."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes._gspo import gspo
from budgeteer.rl.stream import domain_ratio


def domain_mix() -> Recipe:
    """GSPO on prompts of all domains in equal shares of the rollouts that were completed (arXiv 2604.02007)."""
    return replace(gspo(), name="domain-mix", stream=domain_ratio())
