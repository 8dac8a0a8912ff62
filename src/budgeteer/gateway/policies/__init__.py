"""Policies that save tokens, one a file; each is named in the header ``x-budgeteer-policy`` when it acts.

A policy is registered by a function that declares the options of its TOML table, ``[policies.NAME]``, and makes a
:class:`Policy` of them.
"""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.gateway.policies._cache import cache
    from budgeteer.gateway.policies._downgrade import downgrade
    from budgeteer.gateway.policies._last_answer import last_answer
    from budgeteer.gateway.policies._loop import loop
    from budgeteer.gateway.policies._overflow import overflow
    from budgeteer.gateway.policies._pace import pace
    from budgeteer.gateway.policies._route import route
    from budgeteer.gateway.policies._schedule import schedule
    from budgeteer.gateway.policies._tighten import tighten
    from budgeteer.gateway.policies.protocol import Policy, Serving

__all__ = [
    "Policy",
    "Serving",
    "cache",
    "downgrade",
    "last_answer",
    "loop",
    "overflow",
    "pace",
    "route",
    "schedule",
    "tighten",
]

__getattr__ = lazy(
    __name__,
    {
        "Policy": "protocol",
        "Serving": "protocol",
        "cache": "_cache",
        "downgrade": "_downgrade",
        "last_answer": "_last_answer",
        "loop": "_loop",
        "overflow": "_overflow",
        "pace": "_pace",
        "route": "_route",
        "schedule": "_schedule",
        "tighten": "_tighten",
    },
)
