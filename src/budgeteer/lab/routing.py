"""Routes measured over splits of a table: score above the best mix of single models at the same dollars."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.lab.stats import t_quantile
from budgeteer.route.evaluate import Point, evaluate, splits
from budgeteer.route.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One method at one budget, over all splits.

    Attributes:
        method: its name with options.
        share: the budget, as a share of the way from the cheapest to the dearest model.
        budget, cost, score, hull: means over the splits, as in :class:`budgeteer.route.evaluate.Point`.
        gain, low, high: score above the mix at the same dollars, with its 95 % interval.
        called: model -> share of the requests that called it.
    """

    method: str
    share: float
    budget: float
    cost: float
    score: float
    hull: float
    gain: float
    low: float
    high: float
    called: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """As JSON data; an interval of one split is null."""
        return {key: None if value != value else value for key, value in asdict(self).items()}


def corrected(values: Sequence[float] | F64, heldout: float = 1 / 3) -> tuple[float, float, float]:
    """Mean and interval over random splits that share rows.

    Formula: mean +- t[0.975, k - 1] s sqrt(1/k + heldout / (1 - heldout)) of k splits (Nadeau and Bengio 2003): without
    the second term the interval would shrink to nothing with ever more splits of the same rows.

    >>> [round(value, 2) for value in corrected([1.0, 2.0, 3.0], 0.5)]
    [2.0, -2.97, 6.97]
    """
    given = np.asarray(values, np.float64)
    k, mean = len(given), float(given.mean())
    if k < 2:
        return mean, math.nan, math.nan
    half = t_quantile(0.975, k - 1) * float(given.std(ddof=1)) * math.sqrt(1 / k + heldout / (1 - heldout))
    return mean, mean - half, mean + half


def measure(
    table: Table,
    methods: Sequence[str],
    shares: Sequence[float],
    *,
    count: int,
    group: str | None = None,
    without: Sequence[str] = (),
    seed: int = 0,
    tell: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Measure methods over splits.

    Args:
        table: of scores and costs.
        methods: names with options.
        shares: budgets, from 0 (the cheapest model) to 1 (the dearest).
        count: number of splits.
        group: column whose values are held out whole; None = rows.
        without: columns that are no features; the group is none either.
        seed: of splits and fits.
        tell: called with each row.
    """
    if wrong := [share for share in shares if not 0 < share <= 1]:
        raise InvalidInput(
            f"a budget at {wrong[0]:.0%} of the way to the dearest model; give shares above 0%, up to 100%"
        )
    made = {method: registry.part_of("route", method) for method in methods}
    parts = list(splits(table, count, group, seed))
    ignored = [*without, *([group] if group is not None else [])]
    found: list[Row] = []
    for method, route in made.items():
        points = [
            evaluate(route, table, train, heldout, shares, without=ignored, seed=seed + number)
            for number, (train, heldout) in enumerate(parts)
        ]
        for place, share in enumerate(shares):
            row = _row(method, share, [each[place] for each in points], table.models)
            found.append(row)
            if tell is not None:
                tell(row)
    return found


def _row(method: str, share: float, points: Sequence[Point], models: Sequence[str]) -> Row:
    budget, cost, score, hull = (
        float(np.mean([getattr(point, name) for point in points])) for name in ("budget", "cost", "score", "hull")
    )
    called = np.mean([point.called for point in points], axis=0).tolist()
    return Row(
        method,
        share,
        budget,
        cost,
        score,
        hull,
        *corrected([point.gain for point in points]),
        dict(zip(models, called, strict=True)),
    )
