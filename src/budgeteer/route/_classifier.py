"""The model of the best predicted score for its price: a classifier a model.

Paper: "Doing More with Less -- Implementing Routing Strategies in Large Language Model-Based Systems: An Extended
Survey", arXiv 2502.00409.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.route.kit import logistic, ridge, sigmoid
from budgeteer.route.protocol import At, Outcomes, Route, best, check_width


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights [d, m] of the logits of scores, and those of costs."""

    score: F64
    cost: F64


def classifier(penalty: float = 3.0) -> Route:
    """Predict each model's score by a logistic regression, its cost by a ridge regression.

    Formula: the model is argmax sigmoid(x w) - price max(0, x v).
    Helps when features say which requests are hard; does not when models fail on different requests for reasons that no
    feature shows.

    Args:
        penalty: of the squared weights, above 0.

    >>> x, score = np.array([[1.0, -1.0], [1.0, 1.0]]), np.array([[1.0, 1.0], [0.0, 1.0]])
    >>> route = classifier(0.1)
    >>> state = route.fit(Outcomes(x, score, np.array([[1.0, 3.0]] * 2), score * np.nan), np.random.default_rng(0))
    >>> route.route(state, x, np.full((2, 2), np.nan))(0.1).final.tolist()
    [0, 1]
    """
    if not penalty > 0:
        raise InvalidInput(f"classifier:penalty={penalty}; give a number above 0")

    def fit(outcomes: Outcomes, rng: np.random.Generator) -> Weights:
        score = np.stack([logistic(outcomes.x, column, penalty) for column in outcomes.score.T], axis=1)
        return Weights(score, ridge(outcomes.x, outcomes.cost, penalty))

    def route(state: Weights, x: F64, signal: F64) -> At:
        check_width(x, len(state.score))
        return best(sigmoid(x @ state.score), np.maximum(0.0, x @ state.cost))

    return Route(fit, route)
