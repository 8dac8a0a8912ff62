"""Items that compete for a budget, the plan that splits it, and what came of it."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.column import F64, I64, LEAST, MOST, as_column, column
from budgeteer.core.errors import InvalidInput
from budgeteer.core.menu import EXACT, Menu

__all__ = [
    "ABORTED", "CUT", "ENDED", "EXACT", "F64", "FINISHED", "I64", "LEAST", "MOST", "RUNNING", "Items", "Menu",
    "Outcomes", "Plan", "Status", "fault_of", "require_plan", "right", "spend", "whole",
]  # fmt: skip


class Status(IntEnum):
    """How a unit, such as a rollout, stands."""

    RUNNING = 0
    """It is not finished."""
    ENDED = 1
    """It ended by itself."""
    FINISHED = 2
    """A method ended it with its answer complete."""
    ABORTED = 3
    """A method ended it without an answer."""
    CUT = 4
    """A token limit or the end of the budget ended it."""

    @property
    def word(self) -> str:
        """As results and reports write it, such as ``"ended"``."""
        return self.name.lower()


RUNNING, ENDED, FINISHED, ABORTED, CUT = Status


def right(score: F64) -> NDArray[np.bool_]:
    """Whether a verifier's score [n] in [0, 1] is full; rounding does not count.

    >>> right(np.array([1.0, 0.999999, 0.5])).tolist()
    [True, True, False]
    """
    return score > 0.99


def whole(name: str, value: Any, least: int = 0) -> int:
    """``value`` as a whole number from ``least`` to MOST; ``name`` is for the error.

    Raises:
        InvalidInput: a float (NaN included), a bool, a text, a number that is too small or too large.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or not least <= number <= MOST:
        raise InvalidInput(f"{name} is {value!r}; give a whole number from {least} to {MOST:,}")
    return number


def spend(units: I64 | F64, cost: F64) -> float:
    """Sum of units * cost in tokens, correctly rounded, hence the same in every order of the items."""
    return math.fsum((units * cost).tolist())


@dataclass(frozen=True, slots=True, init=False)
class Items:
    """Things that compete for units (prompts for rollouts, questions for samples), as named columns.

    Items either cost the same for each unit (the column ``cost``) or hold a ``menu`` of options of which one is taken.
    Which columns there are, what they mean and who fills them is declared in :mod:`budgeteer.core.column`; a method
    reads the columns that it needs, and :meth:`column` says what is missing.

    >>> items = Items(("a", "b"), [40, 60], std=[0.5, 0.1])
    >>> sorted(items.columns), items.column("std", "neyman").tolist()
    (['cost', 'std'], [0.5, 0.1])

    Attributes:
        keys: n distinct names. Groups are formed by key, never by position.
        columns: name -> [n] values; only the columns that were given.
        menu: options with costs and values of their own, instead of the column ``cost``; a plan's units are then
            option numbers.
    """

    keys: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]
    menu: Menu | None

    def __init__(
        self,
        keys: Sequence[str],
        cost: Any = (),
        *,
        menu: Menu | None = None,
        columns: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """Items from their keys and columns.

        Args:
            keys: n distinct names.
            cost: [n] expected tokens of one unit; left out for a menu.
            menu: instead of ``cost``.
            columns: name -> [n] values.
            more: further columns by name; they replace those of ``columns``. None = not there.

        Raises:
            InvalidInput: a column of another length, or with a value that it may not have.
            UnknownName: a column that nobody declared.
        """
        if isinstance(keys, str):
            raise InvalidInput(f"Items.keys is the text {keys!r}; give a tuple of names, such as ({keys!r},)")
        given = {**(columns or {}), **more}
        if not (isinstance(cost, tuple) and not cost):
            given["cost"] = cost
        elif menu is None:
            given.setdefault("cost", cost)
        object.__setattr__(self, "keys", tuple(keys))
        object.__setattr__(self, "columns", {k: v for k, v in given.items() if v is not None or k == "cost"})
        object.__setattr__(self, "menu", menu)
        self.__post_init__()

    def __post_init__(self) -> None:
        n = len(self.keys)
        if len(set(self.keys)) != n:
            raise InvalidInput("Items.keys repeat; give each item one distinct key and ask for units instead")
        if self.menu is not None and len(self.menu) != n:
            raise InvalidInput(f"Items.menu has {len(self.menu)} items for {n} keys; give one row of options a key")
        if self.menu is not None and "cost" in self.columns:
            raise InvalidInput("Items has both a cost and a menu; a menu has the costs of its options")
        checked = {name: column(name).checked("items", given, self.keys) for name, given in self.columns.items()}
        object.__setattr__(self, "columns", checked)
        if "right" in checked and "drawn" in checked and np.any(checked["right"] > checked["drawn"]):
            at = int(np.argmax(checked["right"] > checked["drawn"]))
            raise InvalidInput(
                f"Items.right is {checked['right'][at]} of {checked['drawn'][at]} drawn for {self.keys[at]!r}"
            )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def cost(self) -> F64:
        """[n] expected tokens of one unit; empty for a menu."""
        return self.columns.get("cost", np.zeros(0))

    @property
    def std(self) -> F64 | None:
        """[n] standard deviation of one unit's contribution, or None when nobody estimated it."""
        return self.columns.get("std")

    @property
    def pass_rate(self) -> F64 | None:
        """[n] estimated success probability, NaN = never seen, or None when nobody estimated it."""
        return self.columns.get("pass_rate")

    @property
    def visits(self) -> I64 | None:
        """[n] earlier steps in which the item got units, or None when it is not known."""
        return self.columns.get("visits")

    @property
    def drawn(self) -> I64 | None:
        """[n] units already drawn for the item in this step, or None before the first round."""
        return self.columns.get("drawn")

    @property
    def right(self) -> I64 | None:
        """[n] how many of the drawn units succeeded, or None before the first round."""
        return self.columns.get("right")

    def column(self, name: str, by: str) -> F64:
        """A column that must be there, as float64.

        Args:
            name: of the column.
            by: the method that reads it, for the error.

        Raises:
            InvalidInput: the column was not given; the message says what it holds and where it comes from.
            UnknownName: nobody declared such a column.
        """
        declared = column(name)
        if name not in self.columns:
            given = ", ".join(self.columns) or "none"
            raise InvalidInput(
                f"{by} needs the column {name!r} of Items ({declared.meaning}); these items have only: {given}. "
                f"To add {name!r}: {declared.source}"
            )
        return np.asarray(self.columns[name], dtype=np.float64)

    def with_columns(self, **more: Any) -> Items:
        """The same items with further or other columns; None takes one away."""
        return Items(self.keys, menu=self.menu, columns={**self.columns, **more})

    def options(self, by: str = "this method") -> Menu:
        """The menu, which must be there; ``by`` names the method that needs it, for the error."""
        if self.menu is None:
            raise InvalidInput(f"{by} needs Items.menu: options with a cost and a value each; see Menu.of")
        return self.menu

    def take(self, order: I64) -> Items:
        """The items at the positions ``order``, in that order."""
        picked = {name: values[order] for name, values in self.columns.items()}
        menu = None if self.menu is None else self.menu.take(order)
        return Items(tuple(self.keys[i] for i in order.tolist()), menu=menu, columns=picked)

    def spend(self, units: I64) -> float:
        """Tokens of a plan's units [n], correctly rounded, hence the same in every order of the items."""
        if self.menu is not None:
            return float(self.menu.at(units)[0].sum())
        return spend(units, self.cost)

    def within(self, units: I64, budget: float) -> I64:
        """The units [n], less single ones of the costliest items if rounding left their sum above the budget."""
        while self.spend(units) > budget:
            i = max(np.flatnonzero(units > 0).tolist(), key=lambda i: (self.cost[i], self.keys[i]))
            units = units - (np.arange(len(units)) == i)
        return units


@dataclass(frozen=True, slots=True)
class Plan:
    """How many units each item gets, and how many tokens one unit may use.

    Attributes:
        keys: n item keys.
        units: [n] integer units, >= 0; for items with a menu, the number of the option taken, 0 = none.
        max_tokens: [n] hard cap of tokens for one unit; 0 = no cap of its own. Empty means 0 for all.
        expected_cost: sum of units * cost (or of the costs of the options taken), in tokens.
        price: tokens' shadow price (the dual variable) at the solution, or NaN.
        value: what the allocator maximises, at this plan, or NaN if it maximises nothing.
        gap: no plan within the budget is worth more than ``value + gap``; 0 = optimal (to the rounding of float64
            sums), NaN = not certified.
    """

    keys: tuple[str, ...]
    units: I64
    expected_cost: float
    max_tokens: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    price: float = float("nan")
    value: float = float("nan")
    gap: float = float("nan")

    def __post_init__(self) -> None:
        for name in ("units", "max_tokens"):
            object.__setattr__(self, name, as_column(f"Plan.{name}", getattr(self, name), np.int64))
        if self.max_tokens.shape == (0,):
            object.__setattr__(self, "max_tokens", np.zeros(len(self.keys), np.int64))
        for name in ("units", "max_tokens"):
            if (shape := getattr(self, name).shape) != (len(self.keys),):
                raise InvalidInput(f"Plan.{name} has shape {shape} for {len(self.keys)} keys; give one number a key")


def fault_of(plan: Plan, items: Items, budget: float) -> str:
    """The first rule that a plan breaks, and how; "" where it keeps all: its keys are the items', its units whole
    numbers >= 0 (of a menu: numbers of its options), its caps >= 0, its cost is within the budget and is what it says.

    >>> items = Items(("a", "b"), [10, 20])
    >>> fault_of(Plan(items.keys, np.array([3, 1]), 50.0), items, 40)
    'the plan costs 50.0 tokens, over its budget of 40'
    """
    if not isinstance(plan, Plan):
        return f"allocate returned a {type(plan).__name__}, no Plan"
    if plan.keys != items.keys:
        return "Plan.keys are not the items' keys in their order"
    if not np.issubdtype(plan.units.dtype, np.integer):
        return f"Plan.units have dtype {plan.units.dtype}; units are integers"
    if np.any(plan.units < 0):
        return f"Plan.units has {int(plan.units.min())}; units are 0 or more, and fit into int64"
    if items.menu is not None and np.any(plan.units > np.diff(items.menu.indptr)):
        return "Plan.units has an option that is not on its item's menu"
    if np.any(plan.max_tokens < 0):
        return f"Plan.max_tokens has {int(plan.max_tokens.min())}; a cap is 1 or more, and 0 is none"
    cost = items.spend(plan.units)
    if cost > budget:
        return f"the plan costs {cost:,.1f} tokens, over its budget of {budget:,}"
    if not math.isclose(cost, plan.expected_cost, rel_tol=1e-9, abs_tol=1e-9):
        return f"Plan.expected_cost is {plan.expected_cost:,.3f}, but units * cost sum to {cost:,.3f}"
    return ""


def require_plan(plan: Plan, items: Items, budget: float, by: str) -> Plan:
    """The plan, if it keeps the rules of :func:`fault_of`; for wherever an allocator of anybody is used.

    Args:
        plan: what ``allocate`` returned.
        items: that it was given.
        budget: that it was given.
        by: whose plan it is, for the error, such as ``"allocator 'neyman'"``.

    Raises:
        InvalidInput: names the maker of the plan and the broken rule.
    """
    if fault := fault_of(plan, items, budget):
        raise InvalidInput(
            f"{by} made a plan that breaks a rule: {fault}; mend it (check_allocator shows how it fails) or choose "
            "another one"
        )
    return plan


@dataclass(frozen=True, slots=True, init=False)
class Outcomes:
    """What the units of a step did, one row a unit, as named columns (declared like those of :class:`Items`).

    Attributes:
        keys: n item keys, one a row (they repeat).
        columns: name -> [n] values: ``tokens``, ``reward``, ``score``, ``status``, and what else was declared.
    """

    keys: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]

    def __init__(self, keys: Sequence[str], tokens: Any, reward: Any, score: Any, status: Any, **more: Any) -> None:
        given = {"tokens": tokens, "reward": reward, "score": score, "status": status, **more}
        names = tuple(keys)
        checked = {name: column(name, "outcomes").checked("outcomes", value, names) for name, value in given.items()}
        object.__setattr__(self, "keys", names)
        object.__setattr__(self, "columns", checked)

    @property
    def tokens(self) -> I64:
        """[n] tokens sampled, aborted beginnings included."""
        return self.columns["tokens"]

    @property
    def reward(self) -> F64:
        """[n] verifier's reward."""
        return self.columns["reward"]

    @property
    def score(self) -> F64:
        """[n] advantage-weighted log-likelihood, a scalar proxy of the unit's gradient; NaN = unknown."""
        return self.columns["score"]

    @property
    def status(self) -> NDArray[np.int8]:
        """[n] a :class:`Status`."""
        return self.columns["status"]

    def take(self, rows: NDArray[np.bool_]) -> Outcomes:
        """The rows where ``rows`` [n] is true."""
        keys = tuple(key for key, use in zip(self.keys, rows.tolist(), strict=True) if use)
        return Outcomes(keys, **{name: values[rows] for name, values in self.columns.items()})
