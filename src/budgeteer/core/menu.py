"""Menus: options with a cost and a value each, of which an item takes at most one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from budgeteer.core.column import F64, I64, MOST, as_column
from budgeteer.core.errors import InvalidInput

EXACT = 2**53
"""Largest sum of the costs on a menu: float64 holds every whole number up to it."""


@dataclass(frozen=True, slots=True)
class Menu:
    """Options of n items of which each takes at most one, in compressed rows (CSR): no Python object an option.

    Option k of item i (k = 1, 2, ...) is at ``indptr[i] + k - 1``. Option 0 is to take nothing: cost 0, value 0; it is
    implied and never stored. Options may come in any order, though plans are easier to read by rising cost.

    Lists are taken for arrays.

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
            dtypes = f"{self.cost.dtype}, {self.value.dtype}, {self.indptr.dtype}"
            raise InvalidInput(f"Menu.cost, value, indptr are {dtypes}; give int64, float64, int64 (Menu.of converts)")
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
