"""Advantages: one a file, grouped by index, ragged by construction."""

from budgeteer.rl.advantage.group_norm import group_norm
from budgeteer.rl.advantage.history_baseline import history_baseline

__all__ = ["group_norm", "history_baseline"]
