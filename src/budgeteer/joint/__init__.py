"""Choices that are judged by one loss of all groups together."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.joint._agent_tts import agent_tts
    from budgeteer.joint._gaussian_process import gaussian_process
    from budgeteer.joint._riemannian import riemannian

__all__ = [
    "agent_tts",
    "gaussian_process",
    "riemannian",
]

__getattr__ = lazy(
    __name__,
    {
        "agent_tts": "_agent_tts",
        "gaussian_process": "_gaussian_process",
        "riemannian": "_riemannian",
    },
)
