"""Rewards: what advantages are made of, one a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.rl.reward._overlong import overlong
    from budgeteer.rl.reward._triangular import triangular
    from budgeteer.rl.reward.protocol import Columns, Reward

__all__ = [
    "Columns",
    "Reward",
    "overlong",
    "triangular",
]

__getattr__ = lazy(
    __name__,
    {
        "Columns": "protocol",
        "Reward": "protocol",
        "overlong": "_overlong",
        "triangular": "_triangular",
    },
)
