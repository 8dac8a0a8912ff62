"""Routes at equal dollars: the price for a budget, and held-out scores against mixes of single models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.route.features import learnt
from budgeteer.route.protocol import Outcomes, Route, Routed
from budgeteer.route.table import Table

FOLDS = 4
"""In which the price of a budget is found: each row is routed by what was learnt from the others."""
_POWERS, _HALVINGS = 100, 25


@dataclass(frozen=True, slots=True)
class Point:
    """One route at one budget on one split.

    Attributes:
        budget: dollars a request that were asked for.
        cost, score: mean dollars and score of the held-out requests.
        hull: score of the best mix of single models, chosen on the held-out requests themselves, of the same cost.
        called: [m] share of the requests that called each model.
    """

    budget: float
    cost: float
    score: float
    hull: float
    called: tuple[float, ...]

    @property
    def gain(self) -> float:
        """Score above the mix at the same dollars."""
        return self.score - self.hull


def outcomes_of(table: Table, x: F64) -> Outcomes:
    """A table with its features."""
    return Outcomes(x, table.score, table.cost, table.signal)


def dollars(routed: Routed, outcomes: Outcomes) -> float:
    """Mean dollars a request: every model that was called."""
    return float((outcomes.cost * routed.paid).sum(axis=1).mean())


def score(routed: Routed, outcomes: Outcomes) -> float:
    """Mean score of the answers."""
    return float(outcomes.score[np.arange(len(routed.final)), routed.final].mean())


def hull(outcomes: Outcomes, cost: float) -> float:
    """The score of the best mix of single models that costs ``cost`` dollars a request on the mean.

    Below the cheapest model it is that model's score, scaled by the share of requests it can answer; the others get
    none.

    >>> x, score, cost = np.ones((1, 1)), np.array([[0.4, 0.5, 0.8]]), np.array([[1.0, 2.0, 3.0]])
    >>> [round(hull(Outcomes(x, score, cost, score * np.nan), c), 2) for c in (0.5, 1.0, 2.0, 9.0)]
    [0.2, 0.4, 0.6, 0.8]
    """
    points = [(0.0, 0.0), *zip(outcomes.cost.mean(axis=0).tolist(), outcomes.score.mean(axis=0).tolist(), strict=True)]
    best = 0.0
    for c, s in points:
        if c <= cost:
            best = max(best, s)
        for other, higher in points:
            if c <= cost < other:
                best = max(best, s + (higher - s) * (cost - c) / (other - c))
    return best


def prices_of(route: Route, outcomes: Outcomes, budgets: Sequence[float], seed: int = 0) -> list[float]:
    """The lowest price at which a route costs no more than each budget, on rows that it was not fitted on.

    Args:
        route: the route.
        outcomes: rows to fit and to try.
        budgets: dollars a request on the mean, above 0.
        seed: of the folds.

    Raises:
        InvalidInput: no price is high enough: the cheapest model is above a budget.
    """
    if wrong := [budget for budget in budgets if not (np.isfinite(budget) and budget > 0)]:
        raise InvalidInput(f"a budget of {wrong[0]} dollars a request; give a number above 0")
    n = len(outcomes.x)
    if n < 2 * FOLDS:
        raise InvalidInput(
            f"{n} requests to learn from are too few to fit a route and its price; give {2 * FOLDS} or more"
        )
    fold = np.random.default_rng([seed, 5]).permutation(n) % FOLDS
    made = []
    for k in range(FOLDS):
        state = route.fit(outcomes.take(fold != k), np.random.default_rng([seed, 6, k]))
        part = outcomes.take(fold == k)
        made.append((route.route(state, part.x, part.signal), part))

    def spent(price: float) -> float:
        return sum(dollars(at(price), part) * len(part.x) for at, part in made) / n

    least = float(outcomes.cost.mean(axis=0).min())
    return [_lowest(spent, budget, 1.0 / max(float(outcomes.cost.max()), 1e-12), least) for budget in budgets]


def _lowest(spent: Callable[[float], float], budget: float, first: float, least: float) -> float:
    """The lowest price at which ``spent`` is within a budget: between powers of two, then halved in its logarithm."""
    budget *= 1 + 1e-9  # a mean of equal costs is rounded, and the cheapest model's own price is a budget
    if spent(0.0) <= budget:
        return 0.0
    high = first
    for _ in range(_POWERS):
        if spent(high) <= budget:
            break
        high *= 2
    else:
        raise InvalidInput(
            f"no price keeps this route within {budget:g} dollars a request; the cheapest model costs {least:g} on the "
            "mean"
        )
    low = high / 2
    for _ in range(_POWERS):
        if spent(low) > budget:
            break
        low, high = low / 2, low
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if spent(middle) <= budget else (middle, high)
    return high


def budgets_of(outcomes: Outcomes, shares: Sequence[float]) -> list[float]:
    """Dollars a request at shares of the way from the cheapest to the dearest model."""
    mean = outcomes.cost.mean(axis=0)
    if not mean.any():
        raise InvalidInput("no model costs anything, so that there is nothing to save; give dollars in cost:MODEL")
    return [float(mean.min() + share * (mean.max() - mean.min())) for share in shares]


def splits(table: Table, count: int, group: str | None, seed: int) -> Iterator[tuple[I64, I64]]:
    """Rows to learn from and held-out rows, ``count`` times: a third is held out, whole groups where one is named.

    Raises:
        InvalidInput: there is no such column, or it has fewer than 3 values.
    """
    if group is not None and group not in table.fields:
        raise InvalidInput(
            f"the table has no column {group!r}; it has {', '.join(table.fields) or 'none'} beside scores"
        )
    labels = (
        np.arange(len(table))
        if group is None
        else np.unique([str(v) for v in table.fields[group]], return_inverse=True)[1]
    )
    names = np.unique(labels)
    if len(names) < 3:
        what = "requests" if group is None else f"values of {group}"
        raise InvalidInput(f"the table has {len(names)} {what}; give 3 or more, so that a third can be held out")
    for number in range(count):
        drawn = np.random.default_rng([seed, 7, number]).permutation(names)
        held = np.isin(labels, drawn[: max(1, len(names) // 3)])
        yield np.flatnonzero(~held).astype(np.int64), np.flatnonzero(held).astype(np.int64)


def evaluate(
    route: Route,
    table: Table,
    train: I64,
    heldout: I64,
    shares: Sequence[float],
    *,
    without: Sequence[str] = (),
    seed: int = 0,
) -> list[Point]:
    """Fit a route on some rows and measure it on others, at several budgets.

    Args:
        route: the route.
        table: of all rows.
        train, heldout: numbers of rows.
        shares: budgets, as shares of the way from the cheapest to the dearest model of the training rows.
        without: columns that are no features.
        seed: of fits.
    """
    fields = table.take(train)
    features = learnt(fields.fields, without)
    known = outcomes_of(fields, features.of(fields.fields))
    rest = table.take(heldout)
    test = outcomes_of(rest, features.of(rest.fields))
    state: Any = route.fit(known, np.random.default_rng([seed, 8]))
    budgets, found = budgets_of(known, shares), []
    if route.stream is None:
        at, prices = route.route(state, test.x, test.signal), prices_of(route, known, budgets, seed)
    for number, budget in enumerate(budgets):
        routed = at(prices[number]) if route.stream is None else route.stream(state, test, budget)
        cost = dollars(routed, test)
        called = tuple(routed.paid.mean(axis=0).tolist())
        found.append(Point(budget, cost, score(routed, test), hull(test, cost), called))
    return found
