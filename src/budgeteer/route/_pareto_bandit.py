"""A bandit that paces a budget of dollars a request and forgets.

Paper: "ParetoBandit: Budget-Paced Adaptive Routing for Non-Stationary LLM Serving", arXiv 2604.00136.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.route.protocol import At, Outcomes, Route, Routed, best, check_width, chosen

RATE, SMOOTHING, MOST = 0.05, 0.05, 5.0
"""Step of the dual variable, weight of the newest cost in its moving average, largest dual variable: the authors'."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of each model: a [m, d, d] and b [m, d] of the ridge regression of its score, and its mean cost [m]."""

    a: F64
    b: F64
    cost: F64


def pareto_bandit(explore: float = 0.05, forget: float = 0.997, prior: float = 200.0, penalty: float = 3.0) -> Route:
    """Serve the model of the best optimistic score minus its paced price, and learn from what it did.

    Formula: argmax x theta + explore sqrt(x A^-1 x / forget^dt) - lambda c', c' = (ln c - ln min) / (ln max - ln min)
    of the models' mean costs, dt = requests since the model was called; a model's A and b shrink by forget^dt when it
    is. After each request, mean <- 0.95 mean + 0.05 cost and lambda <- min(5, max(0, lambda + 0.05 (mean / budget -
    1))), mean starting at the budget and lambda at 0. Models above the ceiling max c / (1 + lambda) are left out while
    lambda is above 0, the cheapest excepted. The table gives the prior: all its outcomes, scaled to ``prior`` requests.
    Adding and removing models while it runs is not here.
    Helps when prices or models change while it serves; on requests like those of the table, a price fixed beforehand
    does as well.

    Args:
        explore: weight of what is not known, 0 or more.
        forget: what is left of an observation after each request, above 0 and at most 1.
        prior: requests that the table counts for, above 0.
        penalty: of the squared weights, above 0.

    >>> x, score = np.tile([[1.0, -1.0], [1.0, 1.0]], (40, 1)), np.tile([[1.0, 1.0], [0.0, 1.0]], (40, 1))
    >>> outcomes = Outcomes(x, score, np.array([[1.0, 3.0]] * 80), score * np.nan)
    >>> route = pareto_bandit()
    >>> served = route.stream(route.fit(outcomes, np.random.default_rng(0)), outcomes, 2.0)
    >>> bool(outcomes.cost[served.paid].mean() < 2.3)
    True
    """
    if not (explore >= 0 and 0 < forget <= 1 and prior > 0 and penalty > 0):
        raise InvalidInput(
            f"pareto-bandit:explore={explore},forget={forget},prior={prior},penalty={penalty}; give explore from 0, "
            "forget above 0 and at most 1, the others above 0"
        )

    def fit(outcomes: Outcomes, rng: np.random.Generator) -> Statistics:
        x, models = outcomes.x, outcomes.score.shape[1]
        scale = min(1.0, prior / len(x))
        a = penalty * np.eye(x.shape[1]) + scale * (x.T @ x)
        return Statistics(np.tile(a, (models, 1, 1)), scale * (x.T @ outcomes.score).T, outcomes.cost.mean(axis=0))

    def route(state: Statistics, x: F64, signal: F64) -> At:
        check_width(x, state.b.shape[1])
        theta = np.linalg.solve(state.a, state.b[..., None])[..., 0]
        return best(x @ theta.T, np.tile(state.cost, (len(x), 1)))

    def stream(state: Statistics, outcomes: Outcomes, budget: float) -> Routed:
        check_width(outcomes.x, state.b.shape[1])
        if not budget > 0:
            raise InvalidInput(f"a budget of {budget} dollars a request; give a number above 0")
        a, b, inverse = state.a.copy(), state.b.copy(), np.linalg.inv(state.a)
        low, high = float(state.cost.min()), float(state.cost.max())
        positive = max(low, high * 1e-6, 1e-300)
        span = np.log(max(high, positive)) - np.log(positive)
        dear = (np.log(np.maximum(state.cost, positive)) - np.log(positive)) / span if span > 0 else state.cost * 0
        last = np.zeros(len(b))
        dual, mean = 0.0, budget
        final = np.zeros(len(outcomes.x), np.int64)
        floor = penalty * (1 - forget) * np.eye(b.shape[1])
        for row, x in enumerate(outcomes.x):
            theta = np.einsum("mij,mj->mi", inverse, b)
            spread = np.sqrt(np.einsum("i,mij,j->m", x, inverse, x) / np.maximum(forget ** (row - last), 1e-3))
            value = theta @ x + explore * spread - dual * dear
            if dual > 0:
                ceiling = high / (1 + dual)
                value = np.where((state.cost <= ceiling) | (state.cost == low), value, -np.inf)
            model = int(np.argmax(value))
            kept = forget ** (row - last[model])
            a[model] = kept * a[model] + np.outer(x, x) + floor * (row - last[model])
            inverse[model] = np.linalg.inv(a[model])
            b[model] = kept * b[model] + outcomes.score[row, model] * x
            last[model], final[row] = row, model
            mean = (1 - SMOOTHING) * mean + SMOOTHING * float(outcomes.cost[row, model])
            dual = min(MOST, max(0.0, dual + RATE * (mean / budget - 1)))
        return chosen(final, len(b))

    return Route(fit, route, stream=stream)
