"""Checks of the protocols' rules, for our own methods and for those of others: one protocol a file.

>>> from budgeteer.allocate import uniform
>>> from budgeteer.check import check_allocator, check_ledger
>>> check_allocator(uniform())
>>> from budgeteer.ledger import MemoryLedger
>>> check_ledger(MemoryLedger)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.check._advantage import check_advantage, check_importance
    from budgeteer.check._aggregator import check_aggregator
    from budgeteer.check._allocator import check_allocator
    from budgeteer.check._allowance import check_allowance
    from budgeteer.check._carry import check_carry
    from budgeteer.check._cells import check_rest, check_score, check_split
    from budgeteer.check._common import CheckFailed
    from budgeteer.check._joint import check_joint
    from budgeteer.check._ledger import check_ledger
    from budgeteer.check._many import check_many
    from budgeteer.check._matching import best_online, check_matching
    from budgeteer.check._meter import check_meter
    from budgeteer.check._method import check_method
    from budgeteer.check._online import check_online
    from budgeteer.check._policy import check_policy, policy_of
    from budgeteer.check._ratio import check_ratio
    from budgeteer.check._recipe import check_recipe
    from budgeteer.check._reducer import check_reducer
    from budgeteer.check._reward import check_reward
    from budgeteer.check._rounding import check_rounding
    from budgeteer.check._route import check_route
    from budgeteer.check._router import check_router
    from budgeteer.check._schedule import check_schedule
    from budgeteer.check._scorer import check_scorer
    from budgeteer.check._steer import check_steer
    from budgeteer.check._strategy import check_strategy
    from budgeteer.check._stream import check_stream
    from budgeteer.check._style import check_style
    from budgeteer.check._task import check_task
    from budgeteer.check._tuning import check_tuning
    from budgeteer.check._variant import check_variant
    from budgeteer.check._verifier import check_verifier
    from budgeteer.check._weight import check_weight

__all__ = [
    "CheckFailed",
    "best_online",
    "check_advantage",
    "check_aggregator",
    "check_allocator",
    "check_allowance",
    "check_carry",
    "check_importance",
    "check_joint",
    "check_ledger",
    "check_many",
    "check_matching",
    "check_meter",
    "check_method",
    "check_online",
    "check_policy",
    "check_ratio",
    "check_recipe",
    "check_reducer",
    "check_rest",
    "check_reward",
    "check_rounding",
    "check_route",
    "check_router",
    "check_schedule",
    "check_score",
    "check_scorer",
    "check_split",
    "check_steer",
    "check_strategy",
    "check_stream",
    "check_style",
    "check_task",
    "check_tuning",
    "check_variant",
    "check_verifier",
    "check_weight",
    "policy_of",
]

__getattr__ = lazy(
    __name__,
    {
        "check_stream": "_stream",
        "check_schedule": "_schedule",
        "check_ratio": "_ratio",
        "check_importance": "_advantage",
        "check_carry": "_carry",
        "check_advantage": "_advantage",
        "CheckFailed": "_common",
        "best_online": "_matching",
        "check_aggregator": "_aggregator",
        "check_allocator": "_allocator",
        "check_allowance": "_allowance",
        "check_joint": "_joint",
        "check_ledger": "_ledger",
        "check_many": "_many",
        "check_matching": "_matching",
        "check_meter": "_meter",
        "check_method": "_method",
        "check_online": "_online",
        "check_policy": "_policy",
        "check_recipe": "_recipe",
        "check_reducer": "_reducer",
        "check_reward": "_reward",
        "check_rounding": "_rounding",
        "check_route": "_route",
        "check_router": "_router",
        "check_score": "_cells",
        "check_scorer": "_scorer",
        "check_rest": "_cells",
        "check_split": "_cells",
        "check_steer": "_steer",
        "check_strategy": "_strategy",
        "check_style": "_style",
        "check_task": "_task",
        "check_tuning": "_tuning",
        "check_variant": "_variant",
        "check_verifier": "_verifier",
        "check_weight": "_weight",
        "policy_of": "_policy",
    },
)
