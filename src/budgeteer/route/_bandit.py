"""Learn from the outcomes of the models that were called alone: LinUCB.

Sources: Li et al., "A Contextual-Bandit Approach to Personalized News Article Recommendation", arXiv 1003.0146; survey
of routing, arXiv 2502.00409; prices drawn while learning, so that one state serves all prices, as BaRP does with
preferences, arXiv 2510.07429.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.route.protocol import At, Outcomes, Route, best, check_width


@dataclass(frozen=True, slots=True)
class Posterior:
    """Statistics of each model's requests.

    Attributes:
        a: [m, d, d] penalty + sum of x x^T.
        b: [m, d] sum of x score.
        spent: [m] sum of costs.
        calls: [m] how many there were.
    """

    a: F64
    b: F64
    spent: F64
    calls: F64

    def mean_cost(self) -> F64:
        """Dollars a call of each model; the mean of all where a model was not called."""
        overall = self.spent.sum() / max(1.0, self.calls.sum())
        return np.where(self.calls > 0, self.spent / np.maximum(self.calls, 1), overall)


def bandit(explore: float = 0.3, penalty: float = 3.0) -> Route:
    """Predict each model's score by ridge regression, learnt from one model a request of the table.

    Formula: while learning, the model is argmax x theta + explore sqrt(x A^-1 x) - price mean cost, at a price drawn
    anew for each request from 0 to what makes the dearest model as good as the cheapest; only its outcome is seen.
    Afterwards it is argmax x theta - price mean cost.
    Helps when calling every model on every request is too dear; with all outcomes at hand, classifiers know more.

    Args:
        explore: weight of what is not known yet, 0 or more.
        penalty: of the squared weights, above 0.

    >>> x, score = np.tile([[1.0, -1.0], [1.0, 1.0]], (40, 1)), np.tile([[1.0, 1.0], [0.0, 1.0]], (40, 1))
    >>> route = bandit()
    >>> state = route.fit(Outcomes(x, score, np.array([[1.0, 3.0]] * 80), score * np.nan), np.random.default_rng(0))
    >>> route.route(state, x[:2], np.full((2, 2), np.nan))(0.1).final.tolist()
    [0, 1]
    """
    if not (explore >= 0 and penalty > 0):
        raise InvalidInput(f"bandit:explore={explore},penalty={penalty}; give explore from 0 and penalty above 0")

    def fit(outcomes: Outcomes, rng: np.random.Generator) -> Posterior:
        n, d = outcomes.x.shape
        models = outcomes.score.shape[1]
        inverse = np.tile(np.eye(d) / penalty, (models, 1, 1))
        a, b = np.tile(penalty * np.eye(d), (models, 1, 1)), np.zeros((models, d))
        spent, calls = np.zeros(models), np.zeros(models)
        for row in rng.permutation(n):
            x = outcomes.x[row]
            mean = Posterior(a, b, spent, calls).mean_cost()
            price = rng.random() / max(float(mean.max() - mean.min()), 1e-300) if mean.max() > mean.min() else 0.0
            spread = np.sqrt(np.einsum("i,mij,j->m", x, inverse, x))
            value = np.einsum("mij,mj,i->m", inverse, b, x) + explore * spread - price * mean
            value[calls == 0] = np.inf  # every model once
            model = int(np.argmax(value))
            a[model] += np.outer(x, x)
            moved = inverse[model] @ x
            inverse[model] -= np.outer(moved, moved) / (1 + x @ moved)
            b[model] += outcomes.score[row, model] * x
            spent[model] += outcomes.cost[row, model]
            calls[model] += 1
        return Posterior(a, b, spent, calls)

    def route(state: Posterior, x: F64, signal: F64) -> At:
        check_width(x, state.b.shape[1])
        theta = np.linalg.solve(state.a, state.b[..., None])[..., 0]
        return best(x @ theta.T, np.tile(state.mean_cost(), (len(x), 1)))

    return Route(fit, route)
