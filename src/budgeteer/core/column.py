"""Columns of Items and Outcomes: each is declared once, with its type, its range, its meaning and where it comes from.

A method reads a column by its name, and whoever invents a new one declares it beside the method that reads it:

>>> NOVELTY = declare(Column("novelty_of_doctest", "distance to the nearest prompt seen before"))
>>> from budgeteer.core.plan import Items
>>> Items(("a", "b"), [10, 20], novelty_of_doctest=[0.5, 2]).column(NOVELTY, "my method").tolist()
[0.5, 2.0]

Files of items, ``budgeteer allocate`` and all that copies, selects or joins items then take the column as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.errors import InvalidInput, UnknownName

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Table = Literal["items", "outcomes"]

MOST = 2**62
"""Largest budget, count or cost of a unit: half of what int64 holds, as for a ledger. It stands for no limit, too."""
LEAST = 1e-12
"""Smallest cost of a unit."""
GIVE = "put it into every line of the item file, or pass it to Items with one value an item"
"""Where a column comes from that nothing in this package fills."""


@dataclass(frozen=True, slots=True)
class Column:
    """What is known of one column.

    Attributes:
        name: as in ``Items(keys, cost, NAME=values)`` and in files of items.
        meaning: of an entry, with its unit, in a few words.
        source: where the values come from, as an instruction to somebody who lacks them.
        whole: entries are whole numbers (int64) instead of float64.
        least, most: range of an entry, both ends included.
        unknown: an entry may be NaN (null in files), for not known.
    """

    name: str
    meaning: str
    source: str = GIVE
    whole: bool = False
    least: float = 0.0
    most: float = math.inf
    unknown: bool = False

    def allowed(self) -> str:
        """The range in words, such as ``a number from 0 to 1, or null where it is not known``."""
        kind = "whole number" if self.whole else "number" if math.isfinite(self.most) else "finite number"
        if self.most == MOST and self.least == LEAST:
            said = f"a number > 0, {LEAST} to {MOST:,} (2^62)"
        elif math.isfinite(self.most):
            said = f"a {kind} from {self.least:g} to {self.most:g}"
        else:
            said = f"a {kind}, {self.least:g} or more" if math.isfinite(self.least) else f"a {kind}"
        return said + (", or null where it is not known" if self.unknown else "")

    def holds(self, value: float) -> bool:
        """Whether an entry may have this value."""
        if math.isnan(value):
            return self.unknown
        fits = self.least <= value <= self.most and math.isfinite(value)
        return fits and (not self.whole or value == int(value))

    def checked(self, table: Table, given: Any, keys: tuple[str, ...]) -> Any:
        """``given`` as an array [n] of this column.

        Args:
            table: for errors.
            given: an array or a list.
            keys: n keys of the rows.

        Raises:
            InvalidInput: another length, or an entry out of range; the message names the first row that is wrong.
        """
        place = f"{table.capitalize()}.{self.name}"
        array = as_column(place, given, np.int64 if self.whole else np.float64)
        if array.shape != (len(keys),):
            raise InvalidInput(f"{place} has shape {array.shape}, expected ({len(keys)},): one value a key")
        if not len(array):
            return array
        finite = np.isfinite(array)
        if not self.unknown and not finite.all():
            bad = keys[int(np.argmin(finite))]
            raise InvalidInput(f"{place} is not finite for {bad!r}; drop the row or give {self.allowed()}")
        low, high = np.fmin.reduce(array), np.fmax.reduce(array)
        if low < self.least or high > self.most or np.isinf([low, high]).any():
            at = int(np.nanargmin(array) if low < self.least or low == -math.inf else np.nanargmax(array))
            raise InvalidInput(f"{place} is {array[at]} for {keys[at]!r}; it is {self.allowed()}: {self.meaning}")
        return array


_DECLARED: dict[Table, dict[str, Column]] = {"items": {}, "outcomes": {}}


def declare(column: Column, table: Table = "items") -> str:
    """Make a column known to everything that takes items (or outcomes), and return its name.

    Raises:
        InvalidInput: the name is no identifier, or was declared with another type, range or meaning.
    """
    known = _DECLARED[table].get(column.name)
    if known is not None and known != column:
        raise InvalidInput(
            f"column {column.name!r} of {table} is declared a second time, as {column.meaning!r} after "
            f"{known.meaning!r}; choose another name"
        )
    if not column.name.isidentifier() or column.name in ("key", "keys", "value", "menu", "columns"):
        raise InvalidInput(f"column {column.name!r} of {table}: choose a name that is an identifier and not taken")
    _DECLARED[table][column.name] = column
    return column.name


def columns(table: Table = "items") -> dict[str, Column]:
    """All declared columns by name, in the order of their declaration."""
    return dict(_DECLARED[table])


def column(name: str, table: Table = "items") -> Column:
    """A declared column.

    Raises:
        UnknownName: nobody declared it; the message lists the nearest names.
    """
    known = _DECLARED[table].get(name)
    if known is None:
        raise UnknownName(f"column of {table} (new ones: budgeteer.core.column.declare)", name, _DECLARED[table])
    return known


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


_HISTORY = f"{GIVE}; in training, budgeteer.rl.history.estimates fills it"
_ROUNDS = f"{GIVE}; in training, each step fills it from the rounds before"
for _column in (
    Column("cost", "expected tokens of one unit", "give one value an item, or a menu", least=LEAST, most=MOST),
    Column("std", "standard deviation of one unit's contribution", _HISTORY),
    Column("pass_rate", "estimated success probability", _HISTORY, most=1.0, unknown=True),
    Column("scale", "error after one unit, of an error curve that falls with the units"),
    Column("decay", "how fast the error falls: the exponent of that curve"),
    Column("visits", "earlier steps in which the item got units", _HISTORY, whole=True),
    Column("drawn", "units already drawn for the item in this step", _ROUNDS, whole=True),
    Column("right", "how many of the drawn units succeeded", _ROUNDS, whole=True),
):
    declare(_column)
for _column in (
    Column("tokens", "tokens sampled, aborted beginnings included", whole=True),
    Column("reward", "the verifier's reward", least=-math.inf),
    Column(
        "score",
        "advantage-weighted log-likelihood, which stands for the unit's gradient",
        least=-math.inf,
        unknown=True,
    ),
    Column("status", "how the unit ended: a number of budgeteer.core.plan.Status", whole=True),
):
    declare(_column, "outcomes")
