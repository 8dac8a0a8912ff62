"""What goes into a prompt: reducers make messages fit a budget of tokens."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.context._bm25 import bm25
    from budgeteer.context._budget_mem import budget_mem
    from budgeteer.context._carrot import carrot
    from budgeteer.context._diverse import diverse
    from budgeteer.context._frugal import frugal
    from budgeteer.context._marginal import marginal
    from budgeteer.context._middle_out import middle_out
    from budgeteer.context._mmr import mmr
    from budgeteer.context._random import random
    from budgeteer.context._rcr import rcr
    from budgeteer.context._recency import recency
    from budgeteer.context._self_information import self_information
    from budgeteer.context._summary import summary

__all__ = [
    "bm25",
    "budget_mem",
    "carrot",
    "diverse",
    "frugal",
    "marginal",
    "middle_out",
    "mmr",
    "random",
    "rcr",
    "recency",
    "self_information",
    "summary",
]

__getattr__ = lazy(
    __name__,
    {
        "bm25": "_bm25",
        "budget_mem": "_budget_mem",
        "carrot": "_carrot",
        "diverse": "_diverse",
        "frugal": "_frugal",
        "marginal": "_marginal",
        "middle_out": "_middle_out",
        "mmr": "_mmr",
        "random": "_random",
        "rcr": "_rcr",
        "recency": "_recency",
        "self_information": "_self_information",
        "summary": "_summary",
    },
)
