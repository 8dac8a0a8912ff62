"""What an agent is told of its budget, and how much of that is left."""

from __future__ import annotations

from collections.abc import Mapping

from budgeteer.metering.turn import units_of
from budgeteer.solve import Task

LEVELS = (("high", 0.7), ("medium", 0.3), ("low", 0.1), ("critical", -1.0))
"""Level -> share of the budget above which it holds."""
HABITS = """Spend with your budget in view. high: explore broadly, several searches at once. medium: search precisely, \
for what is missing. low: follow only the strongest lead. critical: answer from what is known."""
"""How to behave at each level."""


def tracker(task: Task, start: Mapping[str, int]) -> str:
    """The block that tells used and remaining units of each kind, calls of each tool, and the level.

    Args:
        task: its budgeted model says what is left.
        start: kind -> units at the start.
    """
    left, used = task.model.remaining, task.model.spend.tools
    lines = [
        f"{kind}: used {shown(kind, start[kind] - units)}, left {shown(kind, units)}" for kind, units in left.items()
    ]
    lines += [
        f"tool:{tool.name}: used {used[tool.name]}" for tool in task.tools if f"tool:{tool.name.lower()}" not in left
    ]
    return "\n".join(["<budget>", *lines, f"level: {level(ratio(task, start))}", "</budget>"])


def shown(kind: str, units: int) -> str:
    """Units for the model: dollars for money, else a number."""
    return units_of(kind, units).partition(": ")[2]


def ratio(task: Task, start: Mapping[str, int]) -> float:
    """The smallest share that is left of a kind, 0 to 1; a kind of which there was nothing does not count."""
    left = task.model.remaining
    return max(0.0, min((left[kind] / units for kind, units in start.items() if units > 0), default=0.0))


def level(share: float) -> str:
    """The level of a share that is left.

    >>> [level(share) for share in (1.0, 0.7, 0.3, 0.1, 0.0)]
    ['high', 'medium', 'low', 'critical', 'critical']
    """
    return next(name for name, above in LEVELS if share > above)
