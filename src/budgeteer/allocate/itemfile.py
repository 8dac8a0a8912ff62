"""Items from columns, a data frame or a file. The schema is in docs/allocate.md.

>>> from_jsonl(['{"key": "a", "cost": 40, "std": 0.5}']).std
array([0.5])
>>> len(from_jsonl(['{"key": "a", "cost": [1, 2, 4], "value": [0.3, 0.5, 0.6]}']).options().cost)
3
"""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from budgeteer.core import rows
from budgeteer.core.column import Column
from budgeteer.core.column import columns as declared
from budgeteer.core.errors import InvalidInput
from budgeteer.core.menu import Menu
from budgeteer.core.plan import MOST, Items


def from_columns(columns: Mapping[str, Sequence[Any]], *, place: str = "row {}") -> Items:
    """Items from equally long columns: ``key``, ``cost`` and declared ones, or ``key`` with rows of costs and values.

    Args:
        columns: name -> one entry an item; ``cost`` and ``value`` hold lists for a menu.
        place: how an error names a row, by its number from 1.

    Raises:
        InvalidInput: a column is missing or unknown, or an entry cannot be used; the message says which row.
    """
    known = declared()
    unknown = sorted(set(columns) - {"key", "value", *known})
    if unknown or "key" not in columns or "cost" not in columns:
        wrong = f"unknown: {', '.join(unknown)}" if unknown else "key and cost are required"
        fields = ", ".join(["key", "cost", "value", *(name for name in known if name != "cost")])
        raise InvalidInput(
            f"items have the fields {', '.join(columns)}; {wrong}. Known fields: {fields}; a new one is declared with "
            "budgeteer.core.column.declare in the module of the method that reads it"
        )
    keys = [_key(key, place, i) for i, key in enumerate(columns["key"], 1)]
    n = len(keys)
    for name, column in columns.items():
        if len(column) != n:
            raise InvalidInput(f"column {name!r} has {len(column)} entries for {n} keys")
    seen: dict[str, int] = {}
    for i, key in enumerate(keys):
        if seen.setdefault(key, i) != i:
            raise InvalidInput(
                f"{place.format(i + 1)}: key {key!r} was used in {place.format(seen[key] + 1)}; keys are distinct"
            )
    menu = "value" in columns
    for i, entry in enumerate(columns["cost"]):
        if _is_list(entry) != menu:
            given = "a list of costs without values" if _is_list(entry) else "values without a list of costs"
            raise InvalidInput(f"{place.format(i + 1)}: {given}; an item has a cost, or lists of costs and values")
    if menu:
        if len(columns) > 3:
            more = sorted(set(columns) - {"key", "cost", "value"})
            raise InvalidInput(f"items with a menu also have {', '.join(more)}; a menu has only key, cost and value")
        return Items(tuple(keys), menu=_menu(columns["cost"], columns["value"], place))
    filled = {name: _column(known[name], entries, place) for name, entries in columns.items() if name != "key"}
    return Items(tuple(keys), columns=filled)


def from_frame(frame: Any) -> Items:
    """Items from a data frame of pandas, polars or alike: anything with ``columns`` and ``frame[name].to_list()``."""
    return from_columns({str(name): frame[name].to_list() for name in frame.columns}, place="row {} of the frame")


def from_jsonl(lines: Iterable[str], *, name: str = "items") -> Items:
    """Items from JSON lines, one an item; empty lines are skipped.

    Args:
        lines: an open file or a list.
        name: of the source, for errors.
    """
    return _from_rows(rows.lines(lines, name), name)


def from_file(source: str) -> Items:
    """Items from a file: JSON lines, JSON, CSV or Parquet, the text formats also gzipped; ``-`` is standard input.

    Cells of CSV are read as JSON, which numbers, lists and null are; an empty one is null.

    Raises:
        InvalidInput: the file cannot be read, holds no items or one that cannot be used; names file and row.
        MissingExtra: Parquet without polars and pyarrow.
    """
    read, name = rows.read(source), rows.where(source)
    if rows.kind_of(source) == ".csv":
        read = ((place, {field: _cell(field, text) for field, text in row.items()}) for place, row in read)
    items = _from_rows(read, name)
    if not len(items):
        raise InvalidInput(f"{name} holds no items; give one a row, with key and cost")
    return items


def _cell(field: str, text: str) -> Any:
    """What a cell of CSV holds; keys are texts."""
    if field == "key":
        return text
    try:
        return json.loads(text) if text.strip() else None
    except (ValueError, RecursionError):
        return text  # refused where it is used


def _from_rows(table: Iterable[rows.Row], name: str) -> Items:
    columns: dict[str, list[Any]] = {}
    places: list[str] = []
    for place, row in table:
        if not isinstance(row, dict):
            raise InvalidInput(f"{name}, {place}: {type(row).__name__} instead of an object with key and cost")
        if places and row.keys() != columns.keys():
            raise InvalidInput(
                f"{name}, {place}: fields {', '.join(row)}, but {places[0]} has {', '.join(columns)}; "
                "all items have the same fields"
            )
        for field, entry in row.items():
            columns.setdefault(field, []).append(entry)
        places.append(place)
    return from_columns(columns, place=_Place(name, places)) if places else Items(())


class _Place(str):
    """Names the row of a file by where it stands: empty lines shift numbers."""

    places: list[str]

    def __new__(cls, name: str, places: list[str]) -> _Place:
        place = super().__new__(cls, name)
        place.places = places
        return place

    def format(self, *args: object, **_: object) -> str:
        return f"{self}, {self.places[int(str(args[0])) - 1]}"


def _key(key: Any, place: str, row: int) -> str:
    """An item's name: a text, or a whole number as one."""
    if isinstance(key, bool) or not isinstance(key, str | numbers.Integral) or not str(key).strip():
        raise InvalidInput(f"{place.format(row)}: key is {key!r}; it is a text that is not empty, or a whole number")
    return str(key)


def _is_list(entry: Any) -> bool:
    return isinstance(entry, list | tuple | np.ndarray) or (hasattr(entry, "to_list") and not isinstance(entry, str))


def _number(entry: Any) -> float | None:
    """The entry as a float, None if it is no number (a bool is none)."""
    if isinstance(entry, bool | str) or entry is None:
        return None
    try:
        return float(entry)
    except (TypeError, ValueError, OverflowError):
        return None


def _column(column: Column, entries: Sequence[Any], place: str) -> Any:
    values = []
    for i, entry in enumerate(entries):
        value = math.nan if entry is None and column.unknown else _number(entry)
        if value is None or not column.holds(value):
            raise InvalidInput(f"{place.format(i + 1)}: {column.name} is {entry!r}; it is {column.allowed()}")
        values.append(value)
    return np.array(values, dtype=np.int64 if column.whole else np.float64)


def _menu(costs: Sequence[Any], values: Sequence[Any], place: str) -> Menu:
    cost: list[list[int]] = []
    value: list[list[float]] = []
    for i, (row_cost, row_value) in enumerate(zip(costs, values, strict=True)):
        if not _is_list(row_value) or len(row_cost) != len(row_value):
            size = len(row_value) if _is_list(row_value) else repr(row_value)
            raise InvalidInput(f"{place.format(i + 1)}: {len(row_cost)} costs and {size} values; give one value a cost")
        for k, (c, v) in enumerate(zip(row_cost, row_value, strict=True), 1):
            as_cost, as_value = _number(c), _number(v)
            if as_cost is None or not math.isfinite(as_cost) or as_cost != int(as_cost) or not 0 < as_cost <= MOST:
                raise InvalidInput(
                    f"{place.format(i + 1)}: cost {k} is {c!r}; costs on a menu are whole numbers, 1 to {MOST:,} (2^62)"
                )
            if as_value is None or not math.isfinite(as_value):
                raise InvalidInput(f"{place.format(i + 1)}: value {k} is {v!r}; values are finite numbers")
        cost.append([int(c) for c in row_cost])
        value.append([float(v) for v in row_value])
    return Menu.of(cost, value)
