"""The check of routes: each rule against one that breaks it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from budgeteer.check import CheckFailed, check_route
from budgeteer.route import cascade, classifier, pareto_bandit
from budgeteer.route.protocol import Outcomes, Routed, check_price, check_width, chosen

RNG = np.random.default_rng(0)
HONEST, AFTER, STREAM = classifier(), cascade(), pareto_bandit()


def with_route(change, route=HONEST):
    """A route of which ``change(price, routed, x, signal)`` makes another result."""

    def made(state, x, signal):
        at = route.route(state, x, signal)
        return lambda price: change(price, at(price), x, signal)

    return route._replace(route=made)


def editing(outcomes, rng):
    outcomes.cost[0] = 1.0
    return HONEST.fit(outcomes, rng)


def spoiling(price, routed, x, signal):
    x[0] = 0.0
    return routed


@dataclass(frozen=True)
class Lossy:
    inner: object
    price: float = 0.5


def forgetful(state, x, signal):
    """What it learnt is in the function and not in its state."""
    check_width(x, 4)
    return lambda price: (check_price(price), chosen(RNG.integers(0, 2, len(x)), 2))[1]


def no_signals(price, routed, x, signal):
    """Looks at the signal of a model that it has not called."""
    return chosen(np.where(np.nan_to_num(signal[:, 0], nan=0.9) > 0.5, 0, 1), 2) if 0 < price < 0.2 else routed


def blind(price, routed, x, signal):
    return chosen(np.full(len(x), int(price < 0.1)), 2)


def dearer(price, routed, x, signal):
    check_price(price)
    return chosen((x[:, 1] > 0).astype(np.int64) if price < 1 else np.ones(len(x), np.int64), 2)


def careless(state, x, signal):
    at = HONEST.route(state, x, signal)
    return lambda price: at(price if price >= 0 else 0.0)


def any_width(state, x, signal):
    return HONEST.route(state, x[:, :4], signal)


def peeking(state, outcomes: Outcomes, budget):
    if not budget > 0:
        return STREAM.stream(state, outcomes, budget)
    return chosen((outcomes.score[:, 0] < 0.5).astype(np.int64), 2)


def writing(state, outcomes, budget):
    outcomes.cost[0] = 0.0
    return STREAM.stream(state, outcomes, budget)


BROKEN = {
    "no Route": lambda outcomes: 3,
    "fit changed": HONEST._replace(fit=editing),
    "another state": HONEST._replace(fit=lambda o, rng: HONEST.fit(o.take(RNG.permutation(400)[:300]), rng)),
    "does not go into JSON": HONEST._replace(fit=lambda o, rng: Lossy(frozenset({1, 2}))),
    "did not survive JSON": HONEST._replace(fit=lambda o, rng: Lossy([(1, 2)])),
    "route changed": with_route(spoiling),
    "gave other models": HONEST._replace(route=forgetful),
    "final is": with_route(lambda price, routed, x, signal: Routed(routed.final[:-1], routed.paid)),
    "not paid": with_route(lambda price, routed, x, signal: Routed(1 - routed.final, routed.paid)),
    "with any signal": with_route(no_signals),
    "the signal of a model that is not paid": with_route(
        lambda price, routed, x, signal: chosen(np.where(np.nan_to_num(signal[:, 0]) > 0.5, 0, 1), 2), AFTER
    ),
    "costs more": with_route(dearer),
    "it has to learn": with_route(blind),
    "a price of -1.0": HONEST._replace(route=careless),
    "of another width": HONEST._replace(route=any_width),
    "were not called": STREAM._replace(stream=peeking),
    "stream changed": STREAM._replace(stream=writing),
    "a budget of 0": STREAM._replace(
        stream=lambda state, outcomes, budget: STREAM.stream(state, outcomes, budget or 1.0)
    ),
}


@pytest.mark.parametrize("route", [HONEST, AFTER, STREAM], ids=["before", "after", "stream"])
def test_check_route_accepts_each_kind(route):
    check_route(route)


@pytest.mark.parametrize("rule", list(BROKEN))
def test_check_route_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_route(BROKEN[rule])
