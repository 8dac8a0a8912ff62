"""Tables of scores and costs: a row a request, columns ``score:MODEL``, ``cost:MODEL`` and what describes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from budgeteer.core import rows
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.route.features import PROMPT

SCORE, COST, SIGNAL = "score:", "cost:", "signal:"


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it was read.

    Attributes:
        models: those with a score and a cost.
        score, cost: [n, m]; costs in dollars.
        signal: [n, m], NaN where there is none.
        fields: the other columns, [n] each: numbers, or texts.
    """

    models: tuple[str, ...]
    score: F64
    cost: F64
    signal: F64
    fields: Mapping[str, tuple[Any, ...]]

    def __len__(self) -> int:
        return len(self.score)

    def take(self, picked: I64) -> Table:
        """Some of the rows."""
        fields = {name: tuple(values[i] for i in picked) for name, values in self.fields.items()}
        return Table(self.models, self.score[picked], self.cost[picked], self.signal[picked], fields)


def read(source: str) -> Table:
    """Read a table of CSV, JSON lines, JSON or Parquet.

    ``score:MODEL`` is 0 to 1, ``cost:MODEL`` dollars; every model has both. ``signal:MODEL`` is optional. Every other
    column describes the request: ``prompt`` is its text, other texts are categories, the rest numbers.

    Raises:
        InvalidInput: there is no row, fewer than two models have scores, a cost or signal is of a model without a
            score, a column is missing or has no number; names the row.
    """
    found = [(place, row) for place, row in rows.read(source)]
    name = rows.where(source)
    if not found:
        raise InvalidInput(f"{name} has no row; give one a request")
    first = found[0][1]
    if not isinstance(first, dict):
        raise InvalidInput(f"{name}, {found[0][0]}: give an object with columns such as score:MODEL and cost:MODEL")
    models = tuple(column.removeprefix(SCORE) for column in first if column.startswith(SCORE))
    if len(models) < 2:
        raise InvalidInput(f"{name} has scores of {len(models)} models; give columns score:MODEL of two or more")
    if "" in models:
        raise InvalidInput(f"{name} has a column {SCORE!r} without a name behind it; give score:MODEL")
    others = [column for column in first if not column.startswith((SCORE, COST, SIGNAL))]
    score, cost, signal = (np.full((len(found), len(models)), math.nan) for _ in range(3))
    fields: dict[str, list[Any]] = {column: [] for column in others}
    for i, (place, row) in enumerate(found):
        where = f"{name}, {place}"
        _check_models(row, models, where)
        for j, model in enumerate(models):
            score[i, j] = _number(row, SCORE + model, where, 0.0, 1.0)
            cost[i, j] = _number(row, COST + model, where, 0.0, math.inf)
            if SIGNAL + model in first:
                signal[i, j] = _number(row, SIGNAL + model, where, -math.inf, math.inf)
        for column in others:
            if column not in row or row[column] is None:
                raise InvalidInput(f"{where} has no {column}; give it in every row, or in none")
            fields[column].append(row[column])
    made = {name: tuple(map(str, values)) if name == PROMPT else _column(values) for name, values in fields.items()}
    return Table(models, score, cost, signal, made)


def _check_models(row: Any, models: tuple[str, ...], where: str) -> None:
    """Refuse a row that speaks of models which are no candidates: a misspelt name would be left out silently."""
    for column in row if isinstance(row, dict) else ():
        kind, colon, model = column.partition(":")
        if kind + colon in (SCORE, COST, SIGNAL) and model not in models:
            raise InvalidInput(
                f"{where} has {column}, and the models with scores in the first row are {', '.join(models)}; give "
                f"{SCORE}{model} and {COST}{model} in every row, or leave {column} out"
            )


def _number(row: Any, column: str, where: str, least: float, most: float) -> float:
    given = row.get(column) if isinstance(row, dict) else None
    try:
        value = float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InvalidInput(f"{where}: {column} is {given!r}; give a number") from None
    if not (math.isfinite(value) and least <= value <= most):
        bounds = [f" from {least:g}" * math.isfinite(least), f" to {most:g}" * math.isfinite(most)]
        raise InvalidInput(f"{where}: {column} is {given}; give a finite number{''.join(bounds)}")
    return value


def _column(values: list[Any]) -> tuple[Any, ...]:
    """Numbers where all are, texts otherwise."""
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        return tuple(map(str, values))
    return numbers if all(map(math.isfinite, numbers)) else tuple(map(str, values))
