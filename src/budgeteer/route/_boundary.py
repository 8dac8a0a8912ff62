"""Small or large model, learnt from what each does alone: the boundary runs.

Paper: "Budget-Aware Agentic Routing via Boundary-Guided Training", arXiv 2602.21227.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.route.kit import logistic, sigmoid
from budgeteer.route.protocol import At, Outcomes, Route, Routed, check_price, check_width, chosen


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy.

    Attributes:
        w: [d] weights of the logit of the large model.
        ends: [2] numbers of the small and of the large model.
        dearer: what the large one costs more, dollars on the mean.
        models: how many models the table has.
    """

    w: F64
    ends: I64
    dearer: float
    models: int


def boundary(thrift: float = 0.5, steps: int = 200, penalty: float = 3.0) -> Route:
    """Call the large model where it solves what the small one does not.

    Formula: a request is easy if the small model solves it, hard if only the large one does, else intractable (a score
    of 1/2 or more is solved). R = solved (1 + thrift (1 - C)), C = 0 for the small model and 1 for the large; the
    reference is the small model's R on easy requests and the large one's on hard ones; A = R - R_ref, 0 on intractable
    ones, so that cheap failure earns nothing. Warm start: logistic regression of hard against easy. Then gradient
    ascent on the mean over requests of sum over actions pi(a | x) A(x, a), exact, since the table has both outcomes. At
    a price of a dollar the large model is called where pi / (1 - pi) is above price x its extra cost. From the abstract
    and a note; the paper's own form of reward and advantage was not seen. It routes each step of an agent with what is
    left of the task's budget as an input; here a task is one step, and the hard budget is with whoever serves.
    Helps when there are two models, one of which does nearly all that the other does; does not use models between them.

    Args:
        thrift: what a saved call of the large model is worth, 0 to 1, in solved requests.
        steps: of the gradient ascent, 0 or more.
        penalty: of the squared weights of the warm start, and of the squared distance from it afterwards, above 0.

    >>> x, score = np.tile([[1.0, -1.0], [1.0, 1.0]], (40, 1)), np.tile([[1.0, 1.0], [0.0, 1.0]], (40, 1))
    >>> route = boundary()
    >>> state = route.fit(Outcomes(x, score, np.array([[1.0, 3.0]] * 80), score * np.nan), np.random.default_rng(0))
    >>> route.route(state, x[:2], np.full((2, 2), np.nan))(0.5).final.tolist()
    [0, 1]
    """
    if not (0 <= thrift <= 1 and steps >= 0 and penalty > 0):
        raise InvalidInput(
            f"boundary:thrift={thrift},steps={steps},penalty={penalty}; give thrift from 0 to 1, steps from 0 and "
            "penalty above 0"
        )

    def fit(outcomes: Outcomes, rng: np.random.Generator) -> Policy:
        cost, score = outcomes.cost.mean(axis=0), outcomes.score.mean(axis=0)
        small = int(np.argmin(cost))
        dearer = np.where(cost > cost[small], score, -np.inf)
        large = int(np.argmax(dearer))
        if not np.isfinite(dearer[large]):
            raise InvalidInput(
                "all models cost the same on the mean, and a boundary is between a cheap and a dear one; give their "
                "costs, or take another route, such as classifier"
            )
        solved = outcomes.score >= 0.5
        easy, hard = solved[:, small], solved[:, large] & ~solved[:, small]
        known = easy | hard
        x = outcomes.x[known]
        if not easy.any() or not hard.any():  # always the one that solves what can be solved
            w = np.zeros(outcomes.x.shape[1])
        else:
            w = logistic(x, hard[known].astype(np.float64), penalty)
            w = _ascend(w, x, *_advantages(easy[known], solved[known, large], thrift), penalty, steps)
        ends = np.array([small, large], np.int64)
        return Policy(w, ends, float(cost[large] - cost[small]), len(cost))

    def route(state: Policy, x: F64, signal: F64) -> At:
        check_width(x, len(state.w))
        odds = np.exp(np.clip(x @ state.w, -500, 500))

        def at(price: float) -> Routed:
            check_price(price)
            return chosen(state.ends[(odds > price * state.dearer).astype(np.int64)], state.models)

        return at

    return Route(fit, route)


def _advantages(easy: np.ndarray, large: np.ndarray, thrift: float) -> tuple[F64, F64]:
    """A of the small and of the large model: [n] each."""
    reward_small = np.where(easy, 1.0 + thrift, 0.0)
    reward_large = large.astype(np.float64)
    reference = np.where(easy, reward_small, reward_large)
    return reward_small - reference, reward_large - reference


def _ascend(w: F64, x: F64, small: F64, large: F64, penalty: float, steps: int) -> F64:
    """Gradient ascent on mean(pi A_large + (1 - pi) A_small) - penalty / 2n |w - w0|^2, steps halved until it rises."""
    n, rate, begin = len(x), 4.0, w

    def value(w: F64) -> float:
        pi = sigmoid(x @ w)
        return float((pi * large + (1 - pi) * small).mean() - penalty / (2 * n) * ((w - begin) @ (w - begin)))

    now = value(w)
    for _ in range(steps):
        pi = sigmoid(x @ w)
        gradient = x.T @ (pi * (1 - pi) * (large - small)) / n - penalty / n * (w - begin)
        while rate > 1e-6 and value(w + rate * gradient) < now:
            rate /= 2
        if rate <= 1e-6:
            break
        w = w + rate * gradient
        now, rate = value(w), 2 * rate
    return w
