"""One line: which model answers a request.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from budgeteer.core.plan import F64
from budgeteer.route.kit import ridge
from budgeteer.route.protocol import At, Outcomes, Route, best, check_width


@dataclass(frozen=True, slots=True)
class Line:
    """Weights [d, m] of scores, and mean costs [m]."""

    score: F64
    cost: F64


def straight(penalty: float = 1.0) -> Route:
    """Predict each model's score by a straight line, its cost by the mean.

    Formula: the model is argmax x w - price mean cost, w of a ridge regression.
    Helps when scores are nearly linear in the features; does not when they are all or nothing.

    Args:
        penalty: of the squared weights, above 0.

    >>> x, score = np.array([[1.0, -1.0], [1.0, 1.0]]), np.array([[1.0, 1.0], [0.0, 1.0]])
    >>> route = straight(0.1)
    >>> state = route.fit(Outcomes(x, score, np.array([[1.0, 3.0]] * 2), score * np.nan), np.random.default_rng(0))
    >>> route.route(state, x, np.full((2, 2), np.nan))(0.1).final.tolist()
    [0, 1]
    """

    def fit(outcomes: Outcomes, rng: np.random.Generator) -> Line:
        return Line(ridge(outcomes.x, outcomes.score, penalty), outcomes.cost.mean(axis=0))

    def route(state: Line, x: F64, signal: F64) -> At:
        check_width(x, len(state.score))
        return best(x @ state.score, np.tile(state.cost, (len(x), 1)))

    return Route(fit, route)
