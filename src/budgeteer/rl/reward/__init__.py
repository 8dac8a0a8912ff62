"""Rewards: what advantages are made of, one a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.rl.reward._adactrl import adactrl
    from budgeteer.rl.reward._adathink_med import adathink_med
    from budgeteer.rl.reward._ares import ares
    from budgeteer.rl.reward._arlcp import arlcp
    from budgeteer.rl.reward._e1 import e1
    from budgeteer.rl.reward._hbpo import hbpo
    from budgeteer.rl.reward._laser import laser
    from budgeteer.rl.reward._overlong import overlong
    from budgeteer.rl.reward._pear import pear
    from budgeteer.rl.reward._triangular import triangular
    from budgeteer.rl.reward.protocol import ALWAYS, Columns, Reward

__all__ = [
    "ALWAYS",
    "Columns",
    "Reward",
    "adactrl",
    "adathink_med",
    "ares",
    "arlcp",
    "e1",
    "hbpo",
    "laser",
    "overlong",
    "pear",
    "triangular",
]

__getattr__ = lazy(
    __name__,
    {
        "ALWAYS": "protocol",
        "Columns": "protocol",
        "Reward": "protocol",
        "adactrl": "_adactrl",
        "adathink_med": "_adathink_med",
        "ares": "_ares",
        "arlcp": "_arlcp",
        "e1": "_e1",
        "hbpo": "_hbpo",
        "laser": "_laser",
        "overlong": "_overlong",
        "pear": "_pear",
        "triangular": "_triangular",
    },
)
