"""Which prompts come next: one a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.rl.stream._domain_ratio import domain_ratio
    from budgeteer.rl.stream._mopps import mopps
    from budgeteer.rl.stream._tiers import tiers

__all__ = [
    "domain_ratio",
    "mopps",
    "tiers",
]

__getattr__ = lazy(
    __name__,
    {
        "domain_ratio": "_domain_ratio",
        "mopps": "_mopps",
        "tiers": "_tiers",
    },
)
