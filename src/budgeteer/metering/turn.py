"""What the next call of an agent's model may be, and what is lacking where it may be less than was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self, TypeVar

from budgeteer.core.budget import Budget
from budgeteer.core.errors import BudgetExceeded
from budgeteer.metering.settlement import Planned

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Turn:
    """What the next call of an agent's model may be.

    Attributes:
        planned: the call; None: it is not to be made.
        tools: whether with tools; without, it is the last answer, and calls of tools in it are to be left out.
        cap: most tokens of its output.
        note: a message to add to the request; "" = none.
        why: what is lacking, if not all is granted.
        refusal: of a call that is not to be made, with its kind, what is left of it and what is needed.
    """

    planned: Planned | None
    tools: bool
    cap: int
    note: str = ""
    why: str = ""
    refusal: BaseException | None = None

    @property
    def stopped(self) -> str:
        """The text with which an agent ends whose model is not asked."""
        return f"[stopped: the budget does not cover another answer; {self.why}]"

    def after(self, error: BaseException | None) -> Self:
        """The same after the refusal of an earlier one, which is the reason."""
        return self if error is None else replace(self, why=said(error), refusal=error)

    def ended(self, stop: Callable[[str], T] | None) -> T:
        """What the agent ends with.

        Args:
            stop: makes an answer of a text; None: no text can be one.

        Raises:
            BudgetExceeded: ``stop`` is None.
        """
        if stop is not None:
            return stop(self.stopped)
        raise self.refusal or AssertionError("this turn was not refused")


@dataclass(frozen=True, slots=True)
class Shortage:
    """A kind of units of which more is needed than is left."""

    kind: str
    left: int
    needed: int

    def __str__(self) -> str:
        return f"{units_of(self.kind, self.left)} left, {units_of(self.kind, self.needed).rpartition(' ')[2]} needed"


def lacking(free: Mapping[str, int], *needs: Mapping[str, int]) -> Shortage | None:
    """The first kind of which these needs together are more than there is; None: there is enough of all."""
    for kind, units in free.items():
        needed = sum(need.get(kind, 0) for need in needs)
        if needed and needed > units:
            return Shortage(kind, units, needed)
    return None


def said(error: BaseException) -> str:
    if isinstance(error, BudgetExceeded):
        return f"{units_of(error.kind, error.limit - error.used)} of {error.limit:,} left"
    return str(error)


def told(free: Mapping[str, int]) -> str:
    return ", ".join(units_of(kind, units) for kind, units in free.items())


def units_of(kind: str, units: int) -> str:
    shown = str(Budget(kind, abs(units))) if kind == "money" else f"{abs(units):,}"
    return f"{kind}: {'-' if units < 0 else ''}{shown}"
