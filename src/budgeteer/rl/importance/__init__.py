"""Weights of rows or tokens that multiply the advantages: one a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.rl.importance._down_sampled import down_sampled
    from budgeteer.rl.importance._high_entropy import high_entropy
    from budgeteer.rl.importance._high_entropy_steps import high_entropy_steps
    from budgeteer.rl.importance._temporal import temporal

__all__ = [
    "down_sampled",
    "high_entropy",
    "high_entropy_steps",
    "temporal",
]

__getattr__ = lazy(
    __name__,
    {
        "down_sampled": "_down_sampled",
        "high_entropy": "_high_entropy",
        "high_entropy_steps": "_high_entropy_steps",
        "temporal": "_temporal",
    },
)
