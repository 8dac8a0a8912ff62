"""What the next call of an agent's model may be, and what is lacking where it may be less than was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from budgeteer.core.budget import Budget
from budgeteer.core.errors import BudgetExceeded
from budgeteer.metering.settlement import Planned


@dataclass(frozen=True, slots=True)
class Turn:
    """What the next call of an agent's model may be.

    Attributes:
        planned: the call; None: it is not to be made.
        tools: whether with tools; without, it is the last answer, and calls of tools in it are to be left out.
        cap: most tokens of its output.
        note: a message to add to the request; "" = none.
        why: what is lacking, if not all is granted.
    """

    planned: Planned | None
    tools: bool
    cap: int
    note: str = ""
    why: str = ""

    @property
    def stopped(self) -> str:
        """The text with which an agent ends whose model is not asked."""
        return f"[stopped: the budget does not cover another answer; {self.why}]"


def lacking(free: Mapping[str, int], *needs: Mapping[str, int]) -> str:
    """The first kind of which these needs together are more than there is, in words; "" = none."""
    for kind, units in free.items():
        needed = sum(need.get(kind, 0) for need in needs)
        if needed and needed > units:
            return f"{units_of(kind, units)} left, {units_of(kind, needed).rpartition(' ')[2]} needed"
    return ""


def said(error: BaseException) -> str:
    if isinstance(error, BudgetExceeded):
        return f"{units_of(error.kind, error.limit - error.used)} of {error.limit:,} left"
    return str(error)


def told(free: Mapping[str, int]) -> str:
    return ", ".join(units_of(kind, units) for kind, units in free.items())


def units_of(kind: str, units: int) -> str:
    shown = str(Budget(kind, abs(units))) if kind == "money" else f"{abs(units):,}"
    return f"{kind}: {'-' if units < 0 else ''}{shown}"
