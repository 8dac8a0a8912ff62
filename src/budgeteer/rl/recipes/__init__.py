"""Recipes: each a composition of parts, one a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.rl.recipes._adaptive_deep_rl import adaptive_deep_rl
    from budgeteer.rl.recipes._ares import ares
    from budgeteer.rl.recipes._brpo_rl import brpo_rl
    from budgeteer.rl.recipes._budget_forcing_rl import budget_forcing_rl
    from budgeteer.rl.recipes._c3po import c3po
    from budgeteer.rl.recipes._c_grpo import c_grpo
    from budgeteer.rl.recipes._d3s import d3s
    from budgeteer.rl.recipes._dapo import dapo
    from budgeteer.rl.recipes._dart import dart
    from budgeteer.rl.recipes._domain_mix import domain_mix
    from budgeteer.rl.recipes._dr_grpo import dr_grpo
    from budgeteer.rl.recipes._duet import duet
    from budgeteer.rl.recipes._duet_allocation import duet_allocation
    from budgeteer.rl.recipes._duet_published import duet_published
    from budgeteer.rl.recipes._elastic import elastic
    from budgeteer.rl.recipes._forking_tokens import forking_tokens
    from budgeteer.rl.recipes._grpo import grpo
    from budgeteer.rl.recipes._gspo import gspo
    from budgeteer.rl.recipes._hbpo import hbpo
    from budgeteer.rl.recipes._knapsack_rl import knapsack_rl
    from budgeteer.rl.recipes._mopps_rl import mopps_rl
    from budgeteer.rl.recipes._prompt_selection import prompt_selection
    from budgeteer.rl.recipes._reinforce_ada_balance import reinforce_ada_balance
    from budgeteer.rl.recipes._reinforce_ada_pos import reinforce_ada_pos
    from budgeteer.rl.recipes._rmt import rmt
    from budgeteer.rl.recipes._seele import seele
    from budgeteer.rl.recipes._tempo_rl import tempo_rl
    from budgeteer.rl.recipes._tp_schedule import tp_schedule
    from budgeteer.rl.recipes._traac import traac
    from budgeteer.rl.recipes._train_long_think_short import train_long_think_short
    from budgeteer.rl.recipes._uniform_answer_stop import uniform_answer_stop
    from budgeteer.rl.recipes._uniform_stop import uniform_stop
    from budgeteer.rl.recipes._untrained import untrained
    from budgeteer.rl.recipes._vip import vip
    from budgeteer.rl.recipes.named import UNTRAINED, get

__all__ = [
    "UNTRAINED",
    "adaptive_deep_rl",
    "ares",
    "brpo_rl",
    "budget_forcing_rl",
    "c3po",
    "c_grpo",
    "d3s",
    "dapo",
    "dart",
    "domain_mix",
    "dr_grpo",
    "duet",
    "duet_allocation",
    "duet_published",
    "elastic",
    "forking_tokens",
    "get",
    "grpo",
    "gspo",
    "hbpo",
    "knapsack_rl",
    "mopps_rl",
    "prompt_selection",
    "reinforce_ada_balance",
    "reinforce_ada_pos",
    "rmt",
    "seele",
    "tempo_rl",
    "tp_schedule",
    "traac",
    "train_long_think_short",
    "uniform_answer_stop",
    "uniform_stop",
    "untrained",
    "vip",
]

__getattr__ = lazy(
    __name__,
    {
        "UNTRAINED": "named",
        "adaptive_deep_rl": "_adaptive_deep_rl",
        "ares": "_ares",
        "brpo_rl": "_brpo_rl",
        "budget_forcing_rl": "_budget_forcing_rl",
        "c3po": "_c3po",
        "c_grpo": "_c_grpo",
        "d3s": "_d3s",
        "dapo": "_dapo",
        "dart": "_dart",
        "domain_mix": "_domain_mix",
        "dr_grpo": "_dr_grpo",
        "duet": "_duet",
        "duet_allocation": "_duet_allocation",
        "duet_published": "_duet_published",
        "elastic": "_elastic",
        "forking_tokens": "_forking_tokens",
        "get": "named",
        "grpo": "_grpo",
        "gspo": "_gspo",
        "hbpo": "_hbpo",
        "knapsack_rl": "_knapsack_rl",
        "mopps_rl": "_mopps_rl",
        "prompt_selection": "_prompt_selection",
        "reinforce_ada_balance": "_reinforce_ada_balance",
        "reinforce_ada_pos": "_reinforce_ada_pos",
        "rmt": "_rmt",
        "seele": "_seele",
        "tempo_rl": "_tempo_rl",
        "tp_schedule": "_tp_schedule",
        "traac": "_traac",
        "train_long_think_short": "_train_long_think_short",
        "uniform_answer_stop": "_uniform_answer_stop",
        "uniform_stop": "_uniform_stop",
        "untrained": "_untrained",
        "vip": "_vip",
    },
)
