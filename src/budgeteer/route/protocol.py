"""The Route protocol: learn from a table which model answers what, then choose at a price of a dollar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.allocator import State
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What every model made of every request.

    Attributes:
        x: [n, d] features of the requests.
        score: [n, m] how good the model's answer is, 0 to 1.
        cost: [n, m] dollars that it cost.
        signal: [n, m] what can be seen of the answer without knowing the right one, such as the share of samples that
            agree; NaN where nothing was recorded.
    """

    x: F64
    score: F64
    cost: F64
    signal: F64

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or not len(self.x) or not np.all(np.isfinite(self.x)):
            raise InvalidInput(f"features of shape {self.x.shape}; give finite ones, [n, d], of at least one request")
        shape = self.score.shape
        if (
            len(shape) != 2
            or shape[0] != len(self.x)
            or shape[1] < 2
            or {self.cost.shape, self.signal.shape} != {shape}
        ):
            raise InvalidInput(
                f"scores of shape {shape}, costs {self.cost.shape} and signals {self.signal.shape} for {len(self.x)} "
                "requests; give [n, m] of each, of two models or more"
            )
        if not (np.all((self.score >= 0) & (self.score <= 1)) and np.all(np.isfinite(self.cost) & (self.cost >= 0))):
            raise InvalidInput("scores are from 0 to 1 and costs finite numbers from 0; look at the table's columns")

    def take(self, rows: I64 | NDArray[np.bool_]) -> Outcomes:
        """Some of the requests."""
        return Outcomes(self.x[rows], self.score[rows], self.cost[rows], self.signal[rows])


class Routed(NamedTuple):
    """What became of requests.

    Attributes:
        final: [n] number of the model whose answer is given.
        paid: [n, m] which models were called.
    """

    final: I64
    paid: NDArray[np.bool_]


At = Callable[[float], Routed]
"""Price -> what becomes of the requests. A price is what a dollar is worth in scores, 0 or more."""


class Route(NamedTuple):
    """Functions over a state, a frozen dataclass that survives JSON.

    Attributes:
        fit: ``(outcomes, rng) -> state``.
        route: ``(state, x [n, d], signal [n, m]) -> (price -> Routed)``: predictions are made once, for many prices.
            The signal of a model may only be looked at once the model is paid.
        before: whether the choice is made before anything is generated, so that no signal is needed.
        stream: ``(state, outcomes, budget) -> Routed``, for what learns while it serves: requests come in order, and
            only the outcomes of models that are called may be looked at; ``budget`` is dollars a request on the mean.
            None = it learns nothing while it serves.
    """

    fit: Callable[[Outcomes, np.random.Generator], State]
    route: Callable[[State, F64, F64], At]
    before: bool = True
    stream: Callable[[State, Outcomes, float], Routed] | None = None


def chosen(final: I64, models: int) -> Routed:
    """One model a request, called and answering."""
    paid = np.zeros((len(final), models), np.bool_)
    paid[np.arange(len(final)), final] = True
    return Routed(final, paid)


def best(score: F64, cost: F64) -> At:
    """The model of the largest score - price x cost a request; of equal ones the cheaper.

    Args:
        score, cost: [n, m] as predicted.

    >>> best(np.array([[0.5, 0.6]]), np.array([[1.0, 2.0]]))(0.2).final.tolist()
    [0]
    """

    def at(price: float) -> Routed:
        check_price(price)
        value = score - price * cost
        tied = np.where(value >= value.max(axis=1, keepdims=True) - 1e-12, cost, np.inf)
        return chosen(np.argmin(tied, axis=1).astype(np.int64), score.shape[1])

    return at


def check_price(price: float) -> None:
    """Refuse what is no price."""
    if not (np.isfinite(price) and price >= 0):
        raise InvalidInput(f"a price of {price} scores a dollar; give a finite number from 0")


def check_width(x: F64, width: int) -> None:
    """Refuse features of another number than were learnt from."""
    if x.ndim != 2 or x.shape[1] != width:
        raise InvalidInput(f"features of shape {x.shape}; this route has learnt from {width} a request")
