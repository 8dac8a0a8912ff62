"""Items that compete for a budget, the plan that splits it, and what came of it."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.errors import InvalidInput

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

RUNNING, ENDED, FINISHED, ABORTED, CUT = 0, 1, 2, 3, 4
"""Status of a unit: still running; ended by itself; finished by a stopper with its answer complete;
aborted by a stopper; cut by a token limit or by the end of the budget."""

MOST = 2**62
"""Largest budget, count or cost of a unit: half of what int64 holds, as for a ledger. It stands for no limit, too."""
EXACT = 2**53
"""Largest sum of the costs on a menu: float64 holds every whole number up to it."""
LEAST = 1e-12
"""Smallest cost of a unit."""


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


def as_column(name: str, values: Any, dtype: type[np.float64] | type[np.int64]) -> Any:
    """``values`` as an array; an array of numbers is returned as it is, a list or a series is converted.

    Args:
        name: for the error.
        values: anything that NumPy makes an array of numbers of.
        dtype: of what is converted.

    Raises:
        InvalidInput: texts, rows of different lengths, fractions where whole numbers are meant.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiu":
        return values
    try:
        array = np.asarray(values, dtype=np.float64)
        whole_ones = np.asarray(values, dtype=np.int64) if dtype is np.int64 else None
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"{name} is {_short(values)}; give an array or a list of numbers ({error})") from None
    if whole_ones is None:
        return array
    if np.any(whole_ones != array):
        raise InvalidInput(f"{name} is {_short(values)}; give whole numbers")
    return whole_ones


def _short(values: Any) -> str:
    text = repr(values)
    return text if len(text) <= 60 else text[:57] + "..."


def spend(units: I64 | F64, cost: F64) -> float:
    """Sum of units * cost in tokens, correctly rounded, hence the same in every order of the items."""
    return math.fsum((units * cost).tolist())


@dataclass(frozen=True, slots=True)
class Menu:
    """Options of n items of which each takes at most one, in compressed rows (CSR): no Python object an option.

    Option k of item i (k = 1, 2, ...) is at ``indptr[i] + k - 1``. Option 0 is to take nothing: cost 0, value 0; it is
    implied and never stored. Options may come in any order, though plans are easier to read by rising cost.

    Lists are taken for arrays here and in all columns below.

    Attributes:
        cost: [m] whole tokens of an option, > 0.
        value: [m] what an option is worth, finite.
        indptr: [n + 1] where each item's options start; the last entry is m.
    """

    cost: I64
    value: F64
    indptr: I64

    def __post_init__(self) -> None:
        for name, dtype in (("cost", np.int64), ("value", np.float64), ("indptr", np.int64)):
            object.__setattr__(self, name, as_column(f"Menu.{name}", getattr(self, name), dtype))
        m = len(self.cost)
        if self.cost.dtype != np.int64 or self.indptr.dtype != np.int64 or self.value.dtype != np.float64:
            found = f"{self.cost.dtype}, {self.value.dtype}, {self.indptr.dtype}"
            raise InvalidInput(f"Menu.cost, value, indptr are {found}; give int64, float64, int64 (Menu.of converts)")
        if self.cost.shape != (m,) or self.value.shape != (m,):
            raise InvalidInput(f"Menu.value has shape {self.value.shape}, expected ({m},): one value an option")
        if self.indptr.ndim != 1 or not len(self.indptr) or self.indptr[0] != 0 or self.indptr[-1] != m:
            raise InvalidInput(f"Menu.indptr does not run from 0 to the {m} options")
        if np.any(self.indptr[1:] < self.indptr[:-1]):
            raise InvalidInput("Menu.indptr falls; it holds the start of each item's options in order")
        if m and np.min(self.cost) <= 0:
            bad = self._where(int(np.argmin(self.cost)))
            raise InvalidInput(f"Menu.cost is {np.min(self.cost)} for {bad}; costs are > 0, taking nothing is implied")
        if m and float(np.max(self.cost)) * len(self) > EXACT:
            bad, most = self._where(int(np.argmax(self.cost))), EXACT // len(self)
            raise InvalidInput(
                f"Menu.cost is {np.max(self.cost):,} for {bad}; with {len(self):,} items a cost is at most {most:,} "
                f"(2^53 divided by the items), so that sums are exact: count in coarser tokens"
            )
        # the sum is finite unless an entry is not (or the sum overflows, which would be as useless)
        if m and not math.isfinite(float(self.value.sum())):
            at = np.flatnonzero(~np.isfinite(self.value))
            bad = self._where(int(at[0])) if len(at) else "their sum"
            raise InvalidInput(f"Menu.value is not finite for {bad}; drop the option or give a finite value")

    def _where(self, option: int) -> str:
        item = int(np.searchsorted(self.indptr, option, side="right")) - 1
        return f"option {option - int(self.indptr[item]) + 1} of item number {item + 1}"

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @classmethod
    def of(cls, cost: Sequence[Any] | I64, value: Sequence[Any] | F64) -> Menu:
        """From two [n, w] arrays, or from n rows of costs and n rows of values that may differ in length.

        >>> Menu.of([[10, 20], [5]], [[1.0, 1.5], [0.7]]).indptr
        array([0, 2, 3])
        """
        if len(cost) != len(value):
            raise InvalidInput(
                f"Menu.of got {len(cost)} rows of costs and {len(value)} of values; give one row an item"
            )
        if isinstance(cost, np.ndarray) and cost.ndim == 2:
            if np.shape(value) != cost.shape:
                raise InvalidInput(f"Menu.of got costs {cost.shape} and values {np.shape(value)}; shapes must agree")
            indptr = np.arange(len(cost) + 1, dtype=np.int64) * cost.shape[1]
            return cls(_whole(cost.reshape(-1)), np.asarray(value, dtype=np.float64).reshape(-1), indptr)
        sizes = [len(row) for row in cost]
        for i, (size, row) in enumerate(zip(sizes, value, strict=True)):
            if size != len(row):
                raise InvalidInput(f"item number {i + 1} has {size} costs and {len(row)} values; give one value a cost")
        indptr = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        flat_cost = np.array([entry for row in cost for entry in row]) if indptr[-1] else np.zeros(0, np.int64)
        return cls(_whole(flat_cost), np.array([entry for row in value for entry in row], dtype=np.float64), indptr)

    def take(self, order: I64) -> Menu:
        """The options of the items at the positions ``order``, in that order."""
        start, size = self.indptr[order], np.diff(self.indptr)[order]
        indptr = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
        at = np.repeat(start - indptr[:-1], size) + np.arange(indptr[-1])
        return Menu(self.cost[at], self.value[at], indptr)

    def at(self, units: I64) -> tuple[I64, F64]:
        """Cost [n] and value [n] of one chosen option an item, 0 for none.

        Raises:
            InvalidInput: an item has no option of that number.
        """
        if np.any((units < 0) | (units > np.diff(self.indptr))):
            raise InvalidInput("a chosen option is not on its item's menu; options count from 1, 0 is none")
        if not len(self.cost):
            return np.zeros(len(units), np.int64), np.zeros(len(units))
        taken = units > 0
        place = np.where(taken, self.indptr[:-1] + units - 1, 0)
        return np.where(taken, self.cost[place], 0), np.where(taken, self.value[place], 0.0)


def _whole(cost: Any) -> I64:
    """Costs as int64; a fraction or NaN is refused, not rounded, and so is what int64 does not hold."""
    array = np.asarray(cost)
    if not np.issubdtype(array.dtype, np.signedinteger):
        try:
            as_float = np.asarray(array, dtype=np.float64)
        except OverflowError:
            raise InvalidInput(
                f"a cost on a menu has hundreds of digits; costs there are whole tokens, up to {MOST:,} (2^62)"
            ) from None
        bad = ~np.isfinite(as_float) | (as_float != np.floor(as_float)) | (np.abs(as_float) > MOST)
        if np.any(bad):
            at = int(np.flatnonzero(bad)[0])
            raise InvalidInput(
                f"a cost on a menu is {as_float[at]:g}, of option number {at + 1} of all; costs there are whole "
                f"tokens, 1 to {MOST:,} (2^62)"
            )
    return np.ascontiguousarray(array, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Items:
    """Things that compete for units (prompts for rollouts, questions for samples), as columns.

    Items either cost the same for each unit (``cost``) or hold a ``menu`` of options of which one is taken.

    Attributes:
        keys: n distinct names. Groups are formed by key, never by position.
        cost: [n] expected tokens of one unit, finite and > 0; empty for a menu.
        std: [n] standard deviation of one unit's contribution, or None when nobody estimated it.
        pass_rate: [n] estimated success probability in [0, 1]; NaN = never seen.
        visits: [n] earlier steps in which the item got units; None = unknown.
        drawn: [n] units already drawn for the item in this step (later rounds only).
        right: [n] how many of those succeeded.
        scale: [n] error after one unit, of an error curve that falls with the units.
        decay: [n] how fast it falls: the exponent of that curve.
        menu: options with costs and values of their own, instead of ``cost``; a plan's units are then option numbers.
    """

    keys: tuple[str, ...]
    cost: F64 = field(default_factory=lambda: np.zeros(0))
    std: F64 | None = None
    pass_rate: F64 | None = None
    visits: I64 | None = None
    drawn: I64 | None = None
    right: I64 | None = None
    scale: F64 | None = None
    decay: F64 | None = None
    menu: Menu | None = None

    def __post_init__(self) -> None:
        if isinstance(self.keys, str):
            raise InvalidInput(f"Items.keys is the text {self.keys!r}; give a tuple of names, such as ({self.keys!r},)")
        object.__setattr__(self, "keys", tuple(self.keys))
        for f in fields(self)[1:-1]:
            given = getattr(self, f.name)
            if given is not None or f.name == "cost":
                dtype = np.int64 if f.name in ("visits", "drawn", "right") else np.float64
                object.__setattr__(self, f.name, as_column(f"Items.{f.name}", given, dtype))
        n = len(self.keys)
        if len(set(self.keys)) != n:
            raise InvalidInput("Items.keys repeat; give each item one distinct key and ask for units instead")
        if self.menu is not None and len(self.menu) != n:
            raise InvalidInput(f"Items.menu has {len(self.menu)} items for {n} keys; give one row of options a key")
        if self.menu is not None and len(self.cost):
            raise InvalidInput("Items has both a cost and a menu; a menu has the costs of its options")
        for f in fields(self)[1:-1]:
            column = getattr(self, f.name)
            if column is None or (self.menu is not None and f.name == "cost"):
                continue
            if np.shape(column) != (n,):
                raise InvalidInput(f"Items.{f.name} has shape {np.shape(column)}, expected ({n},): one value a key")
            if f.name != "pass_rate" and not np.all(np.isfinite(column)):
                bad = self.keys[int(np.flatnonzero(~np.isfinite(column))[0])]
                raise InvalidInput(f"Items.{f.name} is not finite for {bad!r}; drop the item or give a finite value")
            if f.name != "cost" and np.any(np.asarray(column) < 0):
                raise InvalidInput(f"Items.{f.name} has a negative value; all columns are 0 or more")
        if len(self.cost) and not (np.min(self.cost) >= LEAST and np.max(self.cost) <= MOST):
            at = int(np.argmin(self.cost) if np.min(self.cost) < LEAST else np.argmax(self.cost))
            raise InvalidInput(
                f"Items.cost is {self.cost[at]} for {self.keys[at]!r}; a cost is {LEAST} to {MOST:,} (2^62) tokens a "
                f"unit"
            )
        if self.pass_rate is not None and np.fmax.reduce(self.pass_rate, initial=0.0) > 1:
            bad = self.keys[int(np.nanargmax(self.pass_rate))]
            raise InvalidInput(
                f"Items.pass_rate is {np.nanmax(self.pass_rate)} for {bad!r}; it is in [0, 1], NaN = never seen"
            )
        if self.right is not None and self.drawn is not None and np.any(self.right > self.drawn):
            at = int(np.argmax(self.right > self.drawn))
            raise InvalidInput(f"Items.right is {self.right[at]} of {self.drawn[at]} drawn for {self.keys[at]!r}")

    def __len__(self) -> int:
        return len(self.keys)

    def column(self, name: str) -> F64:
        """A column that must be there, else an error that says who fills it."""
        value = getattr(self, name)
        if value is None:
            raise InvalidInput(f"this allocator needs Items.{name}; fill it, as budgeteer.rl.history.estimates does")
        return np.asarray(value, dtype=np.float64)

    def options(self) -> Menu:
        """The menu, which must be there."""
        if self.menu is None:
            raise InvalidInput("this allocator needs Items.menu: options with a cost and a value each; see Menu.of")
        return self.menu

    def take(self, order: I64) -> Items:
        """The items at the positions ``order``, in that order."""
        columns: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)[1:-1]}
        picked = {name: column[order] for name, column in columns.items() if column is not None and len(column)}
        menu = None if self.menu is None else self.menu.take(order)
        return Items(tuple(self.keys[i] for i in order.tolist()), **picked, menu=menu)

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
        max_tokens: [n] hard cap of tokens for one unit; 0 = no cap of its own.
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
        if self.max_tokens.shape != self.units.shape:
            object.__setattr__(self, "max_tokens", np.zeros(len(self.keys), np.int64))
        if self.units.shape != (len(self.keys),):
            raise InvalidInput(f"Plan.units has shape {self.units.shape} for {len(self.keys)} keys")


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What the units of a step did, one row a unit.

    Attributes:
        keys: n item keys, one a row (they repeat).
        tokens: [n] tokens sampled, aborted prefixes included.
        reward: [n] verifier's reward.
        score: [n] advantage-weighted log-likelihood, a scalar proxy of the unit's gradient; NaN = unknown.
        status: [n] one of ENDED, FINISHED, ABORTED, CUT.
    """

    keys: tuple[str, ...]
    tokens: I64
    reward: F64
    score: F64
    status: NDArray[np.int8]

    def __post_init__(self) -> None:
        for name, dtype in (("tokens", np.int64), ("reward", np.float64), ("score", np.float64), ("status", np.int64)):
            object.__setattr__(self, name, as_column(f"Outcomes.{name}", getattr(self, name), dtype))

    def take(self, rows: NDArray[np.bool_]) -> Outcomes:
        """The rows where ``rows`` [n] is true."""
        keys = tuple(key for key, use in zip(self.keys, rows.tolist(), strict=True) if use)
        return Outcomes(keys, self.tokens[rows], self.reward[rows], self.score[rows], self.status[rows])
