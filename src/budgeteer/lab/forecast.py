"""What a run of an agent will cost, from its first turns, with intervals that hold for new runs.

Papers: "How Do AI Agents Spend Your Money? Analyzing and Predicting Token Consumption in Agentic Coding Tasks", arXiv
2604.22750, which finds that models themselves underestimate; intervals: Barber, Candes, Ramdas and Tibshirani,
"Predictive inference with the jackknife+", arXiv 1905.02928.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from budgeteer.core import rows
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.lab.routing import corrected
from budgeteer.route.kit import ridge

PENALTY = 1.0
"""Of the squared weights of standardised features."""
FEWEST = 10
"""Runs that a forecast needs at least."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of an agent, turn by turn.

    Attributes:
        keys: name of each run.
        group: of each run, such as its task; runs of a group are alike.
        cost: [turns] cost of each turn, one array a run; above 0 in all.
        more: column -> [turns] of each run: further numbers from 0, such as tokens of the prompt.
    """

    keys: tuple[str, ...]
    group: tuple[str, ...]
    cost: tuple[F64, ...]
    more: Mapping[str, tuple[F64, ...]]

    def take(self, picked: Sequence[int] | I64) -> Runs:
        """Some of the runs."""
        some = {name: tuple(values[i] for i in picked) for name, values in self.more.items()}
        kept = (tuple(each[i] for i in picked) for each in (self.keys, self.group, self.cost))
        keys, group, cost = kept
        return Runs(keys, group, cost, some)  # type: ignore[arg-type]

    def longer(self, turns: int) -> Runs:
        """The runs of more than so many turns."""
        return self.take([i for i, cost in enumerate(self.cost) if len(cost) > turns])


def read(source: str, run: Sequence[str], cost: str, group: str | None, more: Sequence[str]) -> Runs:
    """Read rows of turns, in the order in which a run made them.

    Args:
        source: JSON lines, CSV or Parquet.
        run: columns that name a run together.
        cost: column of a turn's cost.
        group: column of what runs have in common; None = each stands for itself.
        more: columns of further numbers from 0.

    Raises:
        InvalidInput: a column is missing, or has no number; names the row.
    """
    turns: dict[tuple[str, ...], list[list[float]]] = {}
    groups: dict[tuple[str, ...], str] = {}
    for place, row in rows.read(source):
        where = f"{rows.where(source)}, {place}"
        if not isinstance(row, Mapping):
            raise InvalidInput(f"{where}: give an object a turn")
        named = (*run, *([group] if group else []), cost, *more)
        if missing := [column for column in named if row.get(column) is None]:
            raise InvalidInput(f"{where} has no {missing[0]}; it has {', '.join(row) or 'nothing'}: name the columns")
        key = tuple(str(row[column]) for column in run)  # "a b", "c" and "a", "b c" are two runs
        groups[key] = " ".join(key) if group is None else str(row[group])
        turns.setdefault(key, []).append([_number(row, column, where) for column in (cost, *more)])
    if not turns:
        raise InvalidInput(f"{rows.where(source)} has no turns; give a row for each turn of a run")
    made = {key: np.array(values) for key, values in turns.items()}
    if free := [key for key, values in made.items() if not values[:, 0].sum() > 0]:
        raise InvalidInput(f"the run {' '.join(free[0])!r} costs nothing; leave runs without cost out")
    arrays = tuple(made.values())
    further = {column: tuple(values[:, 1 + i] for values in arrays) for i, column in enumerate(more)}
    keys, grouped = tuple(map(" ".join, made)), tuple(groups[key] for key in made)
    return Runs(keys, grouped, tuple(values[:, 0] for values in arrays), further)


def _number(row: Mapping[str, object], column: str, where: str) -> float:
    try:
        value = float(row.get(column))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise InvalidInput(f"{where}: {column} is {row.get(column)!r}; give a number from 0")
    return value


def least(runs: Runs) -> list[float]:
    """The smallest number above 0 of each column: what nothing at all counts as, where a logarithm is taken.

    A turn may be free, such as one that was answered from a cache. A smaller stand-in would lie so far below all
    other logarithms that the regression followed it alone.
    """
    columns = (np.concatenate(values) if values else np.zeros(0) for values in (runs.cost, *runs.more.values()))
    return [float(column[column > 0].min(initial=math.inf)) if (column > 0).any() else 1.0 for column in columns]


def features(runs: Runs, turns: int, floors: Sequence[float]) -> F64:
    """What the first turns show, [n, d]: 1, then ln sum and ln(last / mean) of every column, each at least its floor.

    With 0 turns there is nothing but the 1: the forecast is the mean of the runs.
    """
    columns = [np.ones(len(runs.keys))]
    for values, floor in zip((runs.cost, *runs.more.values()), floors, strict=True) if turns else ():
        shown = [(each[:turns].sum(), each[turns - 1], each[:turns].mean()) for each in values]
        total, last, mean = np.log(np.maximum(np.array(shown).T, floor))
        columns += [total, last - mean]
    return np.stack(columns, axis=1)


class Interval(NamedTuple):
    """A forecast: the cost of the whole run, with the limits of its interval; above what is spent already."""

    cost: float
    low: float
    high: float


def forecast(known: Runs, new: Runs, turns: int, *, level: float = 0.9, blind: bool = False) -> list[Interval]:
    """Forecast runs from their first turns.

    Formula: what is spent, plus exp of a ridge regression of ln(cost of the turns that follow) on :func:`features` of
    the known runs with more turns. The interval of the logarithm is the jackknife+: with mu_-g fitted without group g
    and R_i = |y_i - mu_-g(i)(x_i)|, from the floor(alpha (n + 1))-th smallest mu_-g(i)(x) - R_i to the ceil((1 -
    alpha)(n + 1))-th smallest mu_-g(i)(x) + R_i, alpha = 1 - level. For exchangeable groups of one run it covers at
    least 1 - 2 alpha of new runs, and in practice about ``level``.

    Turns that cost nothing count as :func:`least`. Where a share alpha of the known runs or more cost nothing after
    their first turns, the lower limit is what is spent.

    Args:
        known: whole runs.
        new: runs that have made ``turns`` turns or more; later ones are not looked at.
        turns: that are looked at, 0 or more.
        level: of the intervals, above 0 and below 1.
        blind: forecast by the mean of the known runs alone, for comparison.

    Raises:
        InvalidInput: too few known runs are long enough.
    """
    if not 0 < level < 1:
        raise InvalidInput(f"a level of {level}; give a share between 0 and 1, such as 0.9")
    known = known.longer(turns)
    groups = {group: number for number, group in enumerate(sorted(set(known.group)))}
    if len(groups) < FEWEST:
        raise InvalidInput(
            f"{len(groups)} known runs or groups have more than {turns} turns; give {FEWEST} or more, or look at fewer"
        )
    seen = 0 if blind else turns
    floors = least(known)
    x, y = features(known, seen, floors), np.log([max(float(cost[seen:].sum()), floors[0]) for cost in known.cost])
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    mean[0], deviation = 0.0, np.where(deviation > 0, deviation, 1.0)
    x, z = (x - mean) / deviation, (features(new, seen, floors) - mean) / deviation
    left, right = np.zeros((len(known.keys), len(z))), np.zeros((len(known.keys), len(z)))
    owner = np.array([groups[group] for group in known.group])
    for number in range(len(groups)):
        mine = owner == number
        w = _ridge(x[~mine], y[~mine])
        residual = np.abs(y[mine] - x[mine] @ w)
        left[mine], right[mine] = z @ w - residual[:, None], z @ w + residual[:, None]
    middle = z @ _ridge(x, y)
    n, alpha = len(y), 1 - level
    below, above = math.floor(alpha * (n + 1)), math.ceil((1 - alpha) * (n + 1))
    low = np.sort(left, axis=0)[below - 1] if below >= 1 else np.full(len(z), -np.inf)
    high = np.sort(right, axis=0)[above - 1] if above <= n else np.full(len(z), np.inf)
    spent = np.array([float(cost[:seen].sum()) for cost in new.cost])
    if 1 <= below <= sum(not cost[seen:].any() for cost in known.cost):
        low = np.full(len(z), -np.inf)  # so many known runs cost nothing more that a new one may not, either
    limits = [(spent + np.exp(value)).tolist() for value in (middle, low, high)]
    return [Interval(*row) for row in zip(*limits, strict=True)]


def _ridge(x: F64, y: F64) -> F64:
    penalty = np.full(x.shape[1], PENALTY)
    penalty[0] = 0.0  # the mean is not shrunk
    return ridge(x, y, penalty)


class Quality(NamedTuple):
    """How good forecasts of held-out runs are, means over splits; ``blind`` ones know only the mean of other runs.

    Attributes:
        turns: that were looked at.
        runs: held-out runs of more turns, on the mean.
        coverage, blind_coverage: share of the runs whose cost is in the interval.
        ratio, blind_ratio: median of the upper over the lower limit.
        error, blind_error: mean of |ln(forecast / cost)|.
        gain, low, high: blind_error - error, with its 95 % interval.
    """

    turns: int
    runs: float
    coverage: float
    blind_coverage: float
    ratio: float
    blind_ratio: float
    error: float
    blind_error: float
    gain: float
    low: float
    high: float


def evaluate(
    runs: Runs,
    turns: Sequence[int],
    *,
    splits: int,
    level: float = 0.9,
    seed: int = 0,
    tell: Callable[[Quality], None] | None = None,
) -> list[Quality]:
    """Measure forecasts over random splits of the groups, a third of which is held out.

    Args:
        runs: whole runs.
        turns: numbers of first turns to look at.
        splits: 2 or more.
        level: of the intervals.
        seed: of the splits.
        tell: called with each result.
    """
    groups = np.array(sorted(set(runs.group)))
    found = []
    for k in turns:
        scores = []
        for number in range(splits):
            held = set(np.random.default_rng([seed, number]).permutation(groups)[: len(groups) // 3].tolist())
            known = runs.take([i for i, group in enumerate(runs.group) if group not in held])
            new = runs.take([i for i, group in enumerate(runs.group) if group in held]).longer(k)
            if not new.keys:
                raise InvalidInput(f"no held-out run has more than {k} turns; look at fewer")
            truth = np.array([float(cost.sum()) for cost in new.cost])
            scores.append(
                [len(truth)]
                + [
                    value
                    for blind in (False, True)
                    for value in _quality(forecast(known, new, k, level=level, blind=blind), truth)
                ]
            )
        table = np.array(scores)
        runs_, coverage, ratio, error, blind_coverage, blind_ratio, blind_error = table.mean(axis=0).tolist()
        found.append(
            Quality(
                k, runs_, coverage, blind_coverage, ratio, blind_ratio, error, blind_error,
                *corrected(table[:, 6] - table[:, 3]),
            )
        )  # fmt: skip
        if tell is not None:
            tell(found[-1])
    return found


def _quality(intervals: Sequence[Interval], truth: F64) -> tuple[float, float, float]:
    cost, low, high = np.array(intervals).T
    with np.errstate(invalid="ignore"):
        ratio = float(np.median(high / low))
    return float(np.mean((low <= truth) & (truth <= high))), ratio, float(np.abs(np.log(cost / truth)).mean())
