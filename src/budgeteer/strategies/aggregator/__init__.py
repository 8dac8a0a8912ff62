"""Aggregators: one answer out of many samples; one a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.strategies.aggregator._majority import majority
    from budgeteer.strategies.aggregator._majority_filter import frequent, majority_filter
    from budgeteer.strategies.aggregator._max_score import max_score
    from budgeteer.strategies.aggregator._weighted_majority import weighted_majority
    from budgeteer.strategies.aggregator.protocol import Aggregator, Ranked

__all__ = [
    "Aggregator",
    "Ranked",
    "frequent",
    "majority",
    "majority_filter",
    "max_score",
    "weighted_majority",
]

__getattr__ = lazy(
    __name__,
    {
        "Aggregator": "protocol",
        "Ranked": "protocol",
        "frequent": "_majority_filter",
        "majority": "_majority",
        "majority_filter": "_majority_filter",
        "max_score": "_max_score",
        "weighted_majority": "_weighted_majority",
    },
)
