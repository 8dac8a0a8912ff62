"""Methods that end rows while they are decoded."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.steer._answered import answered
    from budgeteer.steer._marker_gate import marker_gate

__all__ = [
    "answered",
    "marker_gate",
]

__getattr__ = lazy(
    __name__,
    {
        "answered": "_answered",
        "marker_gate": "_marker_gate",
    },
)
