"""Advantages: one a file, grouped by index, ragged by construction."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.rl.advantage._batch_scaled import batch_scaled
    from budgeteer.rl.advantage._brpo import brpo
    from budgeteer.rl.advantage._centred_advantage import centred_advantage
    from budgeteer.rl.advantage._grpo_advantage import grpo_advantage
    from budgeteer.rl.advantage._hbpo_advantage import hbpo_advantage
    from budgeteer.rl.advantage._opo import opo
    from budgeteer.rl.advantage._pass_at_k import pass_at_k
    from budgeteer.rl.advantage._rloo import rloo
    from budgeteer.rl.advantage._shrunk_advantage import shrunk_advantage
    from budgeteer.rl.advantage._tempo import tempo
    from budgeteer.rl.advantage.kit import group_norm, history_baseline

__all__ = [
    "batch_scaled",
    "brpo",
    "centred_advantage",
    "group_norm",
    "grpo_advantage",
    "hbpo_advantage",
    "history_baseline",
    "opo",
    "pass_at_k",
    "rloo",
    "shrunk_advantage",
    "tempo",
]

__getattr__ = lazy(
    __name__,
    {
        "batch_scaled": "_batch_scaled",
        "brpo": "_brpo",
        "centred_advantage": "_centred_advantage",
        "group_norm": "kit",
        "grpo_advantage": "_grpo_advantage",
        "hbpo_advantage": "_hbpo_advantage",
        "history_baseline": "kit",
        "opo": "_opo",
        "pass_at_k": "_pass_at_k",
        "rloo": "_rloo",
        "shrunk_advantage": "_shrunk_advantage",
        "tempo": "_tempo",
    },
)
