"""Choices that are judged by one loss of all groups together."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.joint._agent_tts import agent_tts
    from budgeteer.joint._riemannian import riemannian

__all__ = [
    "agent_tts",
    "riemannian",
]

__getattr__ = lazy(
    __name__,
    {
        "agent_tts": "_agent_tts",
        "riemannian": "_riemannian",
    },
)
