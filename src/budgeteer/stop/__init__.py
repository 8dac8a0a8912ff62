"""Stoppers: one a file."""

from budgeteer.stop.answered import answered
from budgeteer.stop.marker_gate import marker_gate

__all__ = ["answered", "marker_gate"]
