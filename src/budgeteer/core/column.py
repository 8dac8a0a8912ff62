"""Columns of Items, Outcomes and rollouts: each is declared once, with its type, its range, its meaning and its source.

A method reads a column by its name, and whoever invents a new one declares it beside the method that reads it:

>>> NOVELTY = declare(Column("novelty_of_doctest", "distance to the nearest prompt seen before"))
>>> from budgeteer.core.plan import Items
>>> Items(("a", "b"), [10, 20], novelty_of_doctest=[0.5, 2]).column(NOVELTY, "my method").tolist()
[0.5, 2.0]

Files of items, ``budgeteer allocate`` and all that copies, selects or joins items then take the column as well.

Columns of rollouts are what rewards read (:class:`budgeteer.rl.reward.Columns`). They may be texts, or have an entry a
token, and one may be computed from others wherever these are:

>>> def count(rows): return [text.count("wait") for text in rows.column("text", "waits")]
>>> declare(Column("waits_of_doctest", "how often it says wait", whole=True, needs=("text",), make=count), "rollouts")
'waits_of_doctest'
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.errors import InvalidInput, UnknownName

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Table = Literal["items", "outcomes", "rollouts"]

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
        text: entries are texts. Of rollouts only, like what follows.
        per_token: [n, t], an entry a token; what stands behind the end of a row does not count.
        of_problem: the entry of a problem may hold it, and then it is not computed; without ``make`` it may anyway.
        needs: columns that ``make`` reads, declared before this one.
        make: ``(rows) -> values``, for a column that is computed from others where nobody gives it; ``rows`` has the
            columns that are always there and those of ``needs``.
    """

    name: str
    meaning: str
    source: str = GIVE
    whole: bool = False
    least: float = 0.0
    most: float = math.inf
    unknown: bool = False
    text: bool = False
    per_token: bool = False
    of_problem: bool = False
    needs: tuple[str, ...] = ()
    make: Callable[[Any], Any] | None = field(default=None, compare=False)

    @property
    def written(self) -> bool:
        """Whether it is computed from what a row says, so that a data set's column of this name is something else."""
        return self.make is not None and bool({"text", "tokens"} & {*self.needs})

    def allowed(self) -> str:
        """The range in words, such as ``a number from 0 to 1, or null where it is not known``."""
        if self.text:
            return "a text"
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
        """``given`` as an array of this column, [n], or [n, t] with an entry a token; texts have dtype object.

        Args:
            table: for errors.
            given: an array or a list.
            keys: n keys of the rows.

        Raises:
            InvalidInput: another length, or an entry out of range; the message names the first row that is wrong.
        """
        place, n = f"{table.capitalize()}.{self.name}", len(keys)
        if self.text:
            return self._texts(place, given, keys)
        array = as_column(place, given, np.int64 if self.whole else np.float64)
        if self.per_token and (array.ndim != 2 or len(array) != n):
            raise InvalidInput(f"{place} has shape {array.shape}, expected ({n}, t): one value a token of each row")
        if not self.per_token and array.shape != (n,):
            raise InvalidInput(f"{place} has shape {array.shape}, expected ({n},): one value a key")
        if not array.size:
            return array
        finite = np.isfinite(array)
        if not self.unknown and not finite.all():
            bad = keys[int(np.argmin(finite)) // (array.size // n)]
            raise InvalidInput(f"{place} is not finite for {bad!r}; drop the row or give {self.allowed()}")
        low, high = np.fmin.reduce(array, axis=None), np.fmax.reduce(array, axis=None)
        if low < self.least or high > self.most or np.isinf([low, high]).any():
            at = int(np.nanargmin(array) if low < self.least or low == -math.inf else np.nanargmax(array))
            bad = keys[at // (array.size // n)]
            raise InvalidInput(f"{place} is {array.flat[at]} for {bad!r}; it is {self.allowed()}: {self.meaning}")
        return array

    def _texts(self, place: str, given: Any, keys: tuple[str, ...]) -> Any:
        """``given`` as an array [n] of texts."""
        texts = [given] if isinstance(given, str) else list(given)
        if len(texts) != len(keys):
            raise InvalidInput(f"{place} has {len(texts)} texts for {len(keys)} keys; give one a key")
        for key, text in zip(keys, texts, strict=True):
            if not isinstance(text, str):
                raise InvalidInput(f"{place} is {_short(text)} for {key!r}; it is a text: {self.meaning}")
        array = np.empty(len(texts), object)
        array[:] = texts
        return array


_DECLARED: dict[Table, dict[str, Column]] = {"items": {}, "outcomes": {}, "rollouts": {}}


def declare(column: Column, table: Table = "items") -> str:
    """Make a column known to everything that takes items (or outcomes, or rollouts), and return its name.

    Raises:
        InvalidInput: the name is no identifier, or was declared with another type, range or meaning; texts, entries a
            token or a ``make`` in another table than that of rollouts.
        UnknownName: it is computed from a column that nobody declared.
    """
    known = _DECLARED[table].get(column.name)
    if known is not None and known != column:
        raise InvalidInput(
            f"column {column.name!r} of {table} is declared a second time, as {column.meaning!r} after "
            f"{known.meaning!r}; choose another name"
        )
    if not column.name.isidentifier() or column.name in ("key", "keys", "value", "menu", "columns"):
        raise InvalidInput(f"column {column.name!r} of {table}: choose a name that is an identifier and not taken")
    if table != "rollouts" and (column.text or column.per_token or column.needs or column.make is not None):
        raise InvalidInput(
            f"column {column.name!r} of {table} has texts, an entry a token or a make; only columns of rollouts may: "
            f'declare(column, "rollouts")'
        )
    if column.needs and column.make is None:
        raise InvalidInput(
            f"column {column.name!r} of {table} has needs and no make; give the function that reads them"
        )
    for name in column.needs:
        _known(name, table)
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
    return _known(name, table)


def _known(name: str, table: Table) -> Column:
    known = _DECLARED[table].get(name)
    if known is None:
        raise UnknownName(f"column of {table} (new ones: budgeteer.core.column.declare)", name, _DECLARED[table])
    return known


def with_sources(names: Iterable[str], given: Iterable[str], table: Table = "rollouts") -> tuple[Column, ...]:
    """The columns of these names, and before each those that it is computed from where nobody gives it.

    Args:
        names: of declared columns.
        given: names of columns that somebody gives, and that need not be computed.

    Raises:
        UnknownName: nobody declared such a column.

    >>> twice = Column("twice_of_doctest", "twice the length", needs=("length",), make=lambda rows: 2 * rows.length)
    >>> [column.name for column in with_sources([declare(twice, "rollouts")], given=[])]
    ['length', 'twice_of_doctest']
    >>> [column.name for column in with_sources(["twice_of_doctest"], given=["twice_of_doctest"])]
    ['twice_of_doctest']
    """
    there, ordered = set(given), dict[str, Column]()
    for name in names:
        known = column(name, table)
        if name not in there and known.make is not None:
            ordered |= {source.name: source for source in with_sources(known.needs, there, table)}
        ordered[name] = known
    return tuple(ordered.values())


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
    Column("threshold", "units below which an item is of no use at all"),
    Column("visits", "earlier steps in which the item got units", _HISTORY, whole=True),
    Column("drawn", "units already drawn for the item in this step", _ROUNDS, whole=True),
    Column("right", "how many of the drawn units succeeded", _ROUNDS, whole=True),
):
    declare(_column)
_SAMPLER = "it comes with the sampler's Rollouts; no other source is needed"
for _column in (
    Column("correct", "the verifier's score", _SAMPLER, least=-math.inf),
    Column("length", "tokens of the rollout", _SAMPLER, whole=True),
    Column("group", "number of the row's prompt, which is only a name", _SAMPLER, whole=True),
    Column("max_tokens", "cap of the row's tokens", _SAMPLER, whole=True),
    Column("status", "how the row ended: a number of budgeteer.core.plan.Status", _SAMPLER, whole=True),
    Column("closed", "length at which the thinking closed, marker included; -1 = never", _SAMPLER, True, least=-1),
    Column("answered", "length at which the answer was complete; -1 = never", _SAMPLER, whole=True, least=-1),
    Column("prompt_key", "key of the row's prompt, the same in every step", _SAMPLER, text=True),
    Column("tokens", "token ids", _SAMPLER, whole=True, per_token=True),
    Column("sampled", "1 where the policy sampled the token in this step", _SAMPLER, True, most=1, per_token=True),
    Column(
        "effort",
        "share of the usual thinking that the prompt allows",
        "use a variant that says it in the prompt (variant=effort), or put it into the entry of every problem (a field "
        "effort in each row of the file that --task names), and say it in the prompt",
        most=1.0,
    ),
    Column(
        "needs_thinking",
        "1 for a prompt that is labelled to need thinking, 0 for one that can be answered at once",
        "put it into the entry of every problem; budgeteer data adacot labels them by the model's own answers",
        whole=True,
        most=1,
    ),
    Column(
        "target",
        "tokens that the row was asked to have",
        "use a variant that says it in the prompt (variant=falling-budget), or put it into the entry of every problem "
        "(a field target in each row of the file that --task names), and say it in the prompt",
    ),
    Column(
        "entropy",
        "entropy in nats of the policy where it drew the token; NaN where it is not known",
        "use a trainer that computes it, as budgeteer.rl.trainer does, and name it in the offers of its Control",
        unknown=True,
        per_token=True,
    ),
    Column(
        "text",
        "what the model wrote, with the markers of its thinking",
        "give the trainer decode=, a function of rows of token ids such as Policy.decode (`budgeteer train` does)",
        text=True,
    ),
    Column(
        "offsets",
        "characters of the text up to the end of the token",
        "give the trainer decode=, as for the column text",
        whole=True,
        per_token=True,
    ),
):
    declare(_column, "rollouts")
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
