"""The models that did well on the most similar requests: nearest neighbours.

Paper: "Doing More with Less -- Implementing Routing Strategies in Large Language Model-Based Systems: An Extended
Survey", arXiv 2502.00409.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.route.protocol import At, Outcomes, Route, best, check_width

_BLOCK = 512
"""Requests whose distances are computed at once."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Features [n, d], scores [n, m] and costs [n, m] of all requests that were learnt from."""

    x: F64
    score: F64
    cost: F64


def similarity(neighbours: int = 20) -> Route:
    """Predict score and cost of each model by the mean over the nearest requests of the table.

    Formula: the model is argmax mean score - price mean cost over the k requests of least Euclidean distance.
    Helps when like requests are alike difficult; does not when difficulty shows in nothing that is recorded.

    Args:
        neighbours: k, 1 or more.

    >>> x, score = np.array([[0.0], [1.0]]), np.array([[1.0, 1.0], [0.0, 1.0]])
    >>> route = similarity(1)
    >>> state = route.fit(Outcomes(x, score, np.array([[1.0, 3.0]] * 2), score * np.nan), np.random.default_rng(0))
    >>> route.route(state, np.array([[0.1], [0.9]]), np.full((2, 2), np.nan))(0.1).final.tolist()
    [0, 1]
    """
    if neighbours < 1:
        raise InvalidInput(f"similarity:neighbours={neighbours}; give 1 or more")

    def fit(outcomes: Outcomes, rng: np.random.Generator) -> Neighbours:
        return Neighbours(outcomes.x.copy(), outcomes.score.copy(), outcomes.cost.copy())

    def route(state: Neighbours, x: F64, signal: F64) -> At:
        check_width(x, state.x.shape[1])
        k = min(neighbours, len(state.x))
        score, cost = np.zeros((len(x), state.score.shape[1])), np.zeros((len(x), state.score.shape[1]))
        for begin in range(0, len(x), _BLOCK):
            part = x[begin : begin + _BLOCK]
            distance = (part**2).sum(1)[:, None] - 2 * part @ state.x.T + (state.x**2).sum(1)
            near = np.argpartition(distance, k - 1, axis=1)[:, :k]
            score[begin : begin + _BLOCK] = state.score[near].mean(axis=1)
            cost[begin : begin + _BLOCK] = state.cost[near].mean(axis=1)
        return best(score, cost)

    return Route(fit, route)
