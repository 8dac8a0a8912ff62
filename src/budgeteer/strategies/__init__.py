"""Strategies: each answers one question with what a budget leaves, by one trace or by many."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.strategies._adaptive_vote import adaptive_vote
    from budgeteer.strategies._beam import beam
    from budgeteer.strategies._best_of_majority import best_of_majority
    from budgeteer.strategies._best_of_n import best_of_n
    from budgeteer.strategies._budget_forcing import budget_forcing
    from budgeteer.strategies._budget_guidance import budget_guidance
    from budgeteer.strategies._clear_many import clear_many
    from budgeteer.strategies._conciseness import conciseness
    from budgeteer.strategies._convergence import convergence
    from budgeteer.strategies._cot_x import cot_x
    from budgeteer.strategies._deadline import deadline
    from budgeteer.strategies._diffadapt import diffadapt
    from budgeteer.strategies._diffadapt_probe import diffadapt_probe
    from budgeteer.strategies._direct import direct
    from budgeteer.strategies._dora import dora
    from budgeteer.strategies._elastic import elastic
    from budgeteer.strategies._length_filtered_vote import length_filtered_vote
    from budgeteer.strategies._mirostat import mirostat
    from budgeteer.strategies._plan_and_budget import plan_and_budget
    from budgeteer.strategies._rebase import rebase
    from budgeteer.strategies._scale import scale
    from budgeteer.strategies._self_consistency import self_consistency
    from budgeteer.strategies._split import split
    from budgeteer.strategies._switch_thinking import switch_thinking
    from budgeteer.strategies._truncate import truncate
    from budgeteer.strategies._value_tree import value_tree
    from budgeteer.strategies._zip_rc import zip_rc

__all__ = [
    "adaptive_vote",
    "beam",
    "best_of_majority",
    "best_of_n",
    "budget_forcing",
    "budget_guidance",
    "clear_many",
    "conciseness",
    "convergence",
    "cot_x",
    "deadline",
    "diffadapt",
    "diffadapt_probe",
    "direct",
    "dora",
    "elastic",
    "length_filtered_vote",
    "mirostat",
    "plan_and_budget",
    "rebase",
    "scale",
    "self_consistency",
    "split",
    "switch_thinking",
    "truncate",
    "value_tree",
    "zip_rc",
]

__getattr__ = lazy(
    __name__,
    {
        "adaptive_vote": "_adaptive_vote",
        "beam": "_beam",
        "best_of_majority": "_best_of_majority",
        "best_of_n": "_best_of_n",
        "budget_forcing": "_budget_forcing",
        "budget_guidance": "_budget_guidance",
        "clear_many": "_clear_many",
        "conciseness": "_conciseness",
        "convergence": "_convergence",
        "cot_x": "_cot_x",
        "deadline": "_deadline",
        "diffadapt": "_diffadapt",
        "diffadapt_probe": "_diffadapt_probe",
        "direct": "_direct",
        "dora": "_dora",
        "elastic": "_elastic",
        "length_filtered_vote": "_length_filtered_vote",
        "mirostat": "_mirostat",
        "plan_and_budget": "_plan_and_budget",
        "rebase": "_rebase",
        "scale": "_scale",
        "self_consistency": "_self_consistency",
        "split": "_split",
        "switch_thinking": "_switch_thinking",
        "truncate": "_truncate",
        "value_tree": "_value_tree",
        "zip_rc": "_zip_rc",
    },
)
