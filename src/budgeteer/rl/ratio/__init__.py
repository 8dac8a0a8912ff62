"""Importance ratios: one a file."""

from budgeteer.rl.ratio.clipped import clipped

__all__ = ["clipped"]
