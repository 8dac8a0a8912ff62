"""Ask the cheap model first, look at its answer, and go on where a dearer one is worth its price.

Paper: "Doing More with Less -- Implementing Routing Strategies in Large Language Model-Based Systems: An Extended
Survey", arXiv 2502.00409. Cascades: FrugalGPT, arXiv 2305.05176.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.route.kit import height, rising
from budgeteer.route.protocol import At, Outcomes, Route, Routed, check_price


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What is expected of an answer, and of others, by its signal.

    Attributes:
        order: [m] models by rising cost.
        cost: [m] mean dollars.
        sign: [m] +1 where a high signal is good, -1 where it is bad.
        begin: the signals, times the sign, at which the steps of all calibrations begin, one after another.
        own, others: heights of the steps: the score of the model itself, and [steps, m] those of all models there.
        steps: [m] how many steps each model has.
    """

    order: I64
    cost: F64
    sign: F64
    begin: F64
    own: F64
    others: F64
    steps: I64


def cascade() -> Route:
    """Go on to the model of the largest expected gain, as long as the gain is worth its price.

    Formula: with the answer of model i and its signal s at hand, go to argmax over dearer j of
    E[score_j | s_i] - price mean cost_j where that is above E[score_i | s_i]. E[score_i | s_i] is a rising (or falling)
    step function, calibrated on the table; E[score_j | s_i] is the mean over the same step. Every model called is paid.
    Helps when an answer shows whether it is right; does not when the signal is noise: then the first call is wasted on
    all that go on.

    >>> signal = np.array([[0.9, 0.0], [0.1, 0.0]])
    >>> score = np.array([[1.0, 1.0], [0.0, 1.0]])
    >>> route = cascade()
    >>> state = route.fit(Outcomes(signal, score, np.array([[1.0, 3.0]] * 2), signal), np.random.default_rng(0))
    >>> route.route(state, signal, signal)(0.1).paid.tolist()
    [[True, False], [True, True]]
    """
    return Route(_fit, _route, before=False)


def _fit(outcomes: Outcomes, rng: np.random.Generator) -> Calibrated:
    mean = outcomes.cost.mean(axis=0)
    order = np.argsort(mean, kind="stable").astype(np.int64)
    models = len(mean)
    if np.isnan(outcomes.signal[:, order[:-1]]).any():
        raise InvalidInput("a cascade looks at answers; give columns signal:MODEL of all models but the dearest")
    sign, begins, owns, others, steps = np.ones(models), [], [], [], np.zeros(models, np.int64)
    for model in range(models):
        signal, score = outcomes.signal[:, model], outcomes.score[:, model]
        if np.isnan(signal).any():
            signal = np.zeros(len(score))
        sign[model] = -1.0 if _slope(signal, score) < 0 else 1.0
        begin, own = rising(sign[model] * signal, score)
        place = np.maximum(np.searchsorted(begin, sign[model] * signal, side="right") - 1, 0)
        count = np.bincount(place, minlength=len(begin))
        there = [np.bincount(place, column, minlength=len(begin)) / count for column in outcomes.score.T]
        begins.append(begin)
        owns.append(own)
        others.append(np.stack(there, axis=1))
        steps[model] = len(begin)
    return Calibrated(order, mean, sign, np.concatenate(begins), np.concatenate(owns), np.concatenate(others), steps)


def _slope(signal: F64, score: F64) -> float:
    return float(((signal - signal.mean()) * (score - score.mean())).sum())


def _route(state: Calibrated, x: F64, signal: F64) -> At:
    n, models = len(x), len(state.order)
    if signal.shape != (n, models):
        raise InvalidInput(f"signals of shape {signal.shape} for {n} requests and {models} models")
    return lambda price: _going(state, signal, price)


def _going(state: Calibrated, signal: F64, price: float) -> Routed:
    check_price(price)
    n, models = signal.shape
    final = np.full(n, state.order[0])
    paid = np.zeros((n, models), np.bool_)
    paid[:, state.order[0]] = True
    rank = np.argsort(state.order)
    ends = np.cumsum(state.steps)
    going = np.arange(n)
    while len(going):
        on: list[I64] = []
        for model in np.unique(final[going]):
            rows = going[final[going] == model]
            part = slice(int(ends[model] - state.steps[model]), int(ends[model]))
            seen = np.nan_to_num(state.sign[model] * signal[rows, model])
            own = height((state.begin[part], state.own[part]), seen)
            place = np.maximum(np.searchsorted(state.begin[part], seen, side="right") - 1, 0)
            value = state.others[part][place] - price * state.cost
            value[:, rank <= rank[model]] = -np.inf  # only dearer models
            to = np.argmax(value, axis=1)
            better = value[np.arange(len(rows)), to] > own + 1e-12
            final[rows[better]] = to[better]
            paid[rows[better], to[better]] = True
            on.append(rows[better])
        going = np.concatenate(on) if on else going[:0]
    return Routed(final.astype(np.int64), paid)
