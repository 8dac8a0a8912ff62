"""Carries, which continue rollouts in a later step: one per file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.rl.carry._partial_rollouts import partial_rollouts

__all__ = [
    "partial_rollouts",
]

__getattr__ = lazy(
    __name__,
    {
        "partial_rollouts": "_partial_rollouts",
    },
)
