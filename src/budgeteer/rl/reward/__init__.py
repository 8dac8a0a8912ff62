"""Rewards: what advantages are made of, one a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.rl.reward._adacot import adacot
    from budgeteer.rl.reward._adactrl import adactrl
    from budgeteer.rl.reward._adaptive_deep import adaptive_deep
    from budgeteer.rl.reward._adathink_med import adathink_med
    from budgeteer.rl.reward._alp import alp
    from budgeteer.rl.reward._ares import ares
    from budgeteer.rl.reward._arlcp import arlcp
    from budgeteer.rl.reward._cosine import cosine
    from budgeteer.rl.reward._e1 import e1
    from budgeteer.rl.reward._hbpo import hbpo
    from budgeteer.rl.reward._kimi import kimi
    from budgeteer.rl.reward._l1 import l1
    from budgeteer.rl.reward._laser import laser
    from budgeteer.rl.reward._o1_pruner import o1_pruner
    from budgeteer.rl.reward._overlong import overlong
    from budgeteer.rl.reward._pear import pear
    from budgeteer.rl.reward._repetition import repetition
    from budgeteer.rl.reward._right_only import right_only
    from budgeteer.rl.reward._router_r1 import router_r1
    from budgeteer.rl.reward._shorter_better import shorter_better
    from budgeteer.rl.reward._thinkdial import thinkdial
    from budgeteer.rl.reward._traac import traac
    from budgeteer.rl.reward._triangular import triangular
    from budgeteer.rl.reward._visionthink import visionthink
    from budgeteer.rl.reward.protocol import ALWAYS, Columns, Monitor, Reward, of_terms
    from budgeteer.rl.reward.sums import summed

__all__ = [
    "ALWAYS",
    "Columns",
    "Monitor",
    "Reward",
    "adacot",
    "adactrl",
    "adaptive_deep",
    "adathink_med",
    "alp",
    "ares",
    "arlcp",
    "cosine",
    "e1",
    "hbpo",
    "kimi",
    "l1",
    "laser",
    "o1_pruner",
    "of_terms",
    "overlong",
    "pear",
    "repetition",
    "right_only",
    "router_r1",
    "shorter_better",
    "summed",
    "thinkdial",
    "traac",
    "triangular",
    "visionthink",
]

__getattr__ = lazy(
    __name__,
    {
        "ALWAYS": "protocol",
        "Columns": "protocol",
        "Monitor": "protocol",
        "Reward": "protocol",
        "adacot": "_adacot",
        "adactrl": "_adactrl",
        "adaptive_deep": "_adaptive_deep",
        "adathink_med": "_adathink_med",
        "alp": "_alp",
        "ares": "_ares",
        "arlcp": "_arlcp",
        "cosine": "_cosine",
        "e1": "_e1",
        "hbpo": "_hbpo",
        "kimi": "_kimi",
        "l1": "_l1",
        "laser": "_laser",
        "o1_pruner": "_o1_pruner",
        "of_terms": "protocol",
        "overlong": "_overlong",
        "pear": "_pear",
        "repetition": "_repetition",
        "right_only": "_right_only",
        "router_r1": "_router_r1",
        "shorter_better": "_shorter_better",
        "summed": "sums",
        "thinkdial": "_thinkdial",
        "traac": "_traac",
        "triangular": "_triangular",
        "visionthink": "_visionthink",
    },
)
