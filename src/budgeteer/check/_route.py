"""The rules of routes."""

from __future__ import annotations

import copy
import json
from itertools import pairwise

import numpy as np

from budgeteer.check._common import CheckFailed, refuses, same
from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.route.evaluate import dollars, hull, score
from budgeteer.route.protocol import Outcomes, Route, Routed

REQUESTS, WIDTH = 400, 4
COST = np.array([1.0, 4.0])
PRICES = (0.0, 0.02, 0.08, 0.15, 0.25, 1.0, 100.0)
GAIN = 0.02
"""By how much a route has to be above the best mix of single models somewhere."""


def check_route(route: Route, *, seed: int = 0) -> None:
    """Fit a route on made-up requests, route others, and raise :class:`CheckFailed` at the first broken rule.

    Rules: every request gets one answer of a model that was paid; the same state gives the same; a state survives JSON;
    nothing that was given is changed; a higher price does not cost more; a choice made before anything is generated
    looks at no signal, any other only at those of models that are paid, and a stream only at outcomes of these; where
    features and signals say which requests are hard, some price beats the best mix of single models; features of
    another width, and prices that are negative or no numbers, are refused with InvalidInput.

    Args:
        route: the route to check.
        seed: of the requests.
    """
    if not isinstance(route, Route):
        raise CheckFailed(f"the factory made {route!r}, no Route")
    rng = np.random.default_rng([seed, 12])
    known, test = _made_up(rng), _made_up(rng)
    before = copy.deepcopy(known)
    state = route.fit(known, np.random.default_rng(1))
    if not same(known, before):
        raise CheckFailed("fit changed the outcomes it was given; copy before writing")
    if not same(state, route.fit(known, np.random.default_rng(1))):
        raise CheckFailed("the same outcomes and seed gave another state")
    try:
        back = load_state(state, json.loads(json.dumps(dump_state(state))))
    except TypeError as error:
        raise CheckFailed(f"the state does not go into JSON: {error}") from error
    if not same(back, state):
        raise CheckFailed("the state did not survive JSON")
    spent, gains = [], []
    for price in PRICES:
        routed = _routed(route, state, test.x, test.signal, price)
        if not same(routed, _routed(route, back, test.x, test.signal, price)):
            raise CheckFailed("the same state gave other models")
        for unknown in (np.nan, 0.0, 1.0):
            hidden = np.where(routed.paid & (not route.before), test.signal, unknown)
            if not same(routed, _routed(route, state, test.x, hidden, price)):
                what = "any signal" if route.before else "the signal of a model that is not paid"
                raise CheckFailed(f"models change with {what}: nobody knows it yet")
        spent.append(dollars(routed, test))
        gains.append(score(routed, test) - hull(test, spent[-1]))
    if any(later > earlier + 1e-9 for earlier, later in pairwise(spent)):
        raise CheckFailed(f"a higher price costs more: {spent}")
    if not max(gains) > GAIN:
        raise CheckFailed(
            f"no price is more than {max(gains):.3f} above the best mix of single models; it has to learn"
        )
    _stream(route, state, test)
    at = route.route(state, test.x, test.signal)
    for price in (-1.0, float("nan"), float("inf")):
        refuses(InvalidInput, f"a price of {price} is refused", at, price)
    if route.before:
        wide = np.ones((2, WIDTH + 1))
        refuses(InvalidInput, "features of another width are refused", route.route, state, wide, test.signal[:2])


def _made_up(rng: np.random.Generator) -> Outcomes:
    """Requests whose second feature says how hard they are; the signal says whether the small model is right."""
    x = np.column_stack([np.ones(REQUESTS), rng.normal(size=(REQUESTS, WIDTH - 1))])
    small = rng.random(REQUESTS) < 1 / (1 + np.exp(3 * x[:, 1]))
    score = np.column_stack([small, rng.random(REQUESTS) < 0.95]).astype(np.float64)
    signal = np.column_stack([np.where(small, 0.8, 0.2) + 0.1 * rng.normal(size=REQUESTS), np.full(REQUESTS, np.nan)])
    return Outcomes(x, score, COST * (0.8 + 0.4 * rng.random((REQUESTS, 2))), signal)


def _routed(route: Route, state: object, x: F64, signal: F64, price: float) -> Routed:
    before = copy.deepcopy((state, x, signal))
    routed = route.route(state, x, signal)(price)
    if not same((state, x, signal), before):
        raise CheckFailed("route changed what it was given; copy before writing")
    return _valid(routed, len(x))


def _valid(routed: Routed, n: int) -> Routed:
    final, paid = routed
    if final.shape != (n,) or final.dtype.kind != "i" or paid.shape != (n, len(COST)) or paid.dtype != np.bool_:
        raise CheckFailed(
            f"final is {final.dtype} {final.shape} and paid {paid.dtype} {paid.shape}; int [n], bool [n, m]"
        )
    if not (np.all((final >= 0) & (final < len(COST))) and np.all(paid[np.arange(n), final])):
        raise CheckFailed("an answer is of a model that was not paid; every request gets one")
    return routed


def _stream(route: Route, state: object, test: Outcomes) -> None:
    if route.stream is None:
        return
    budget = float(COST.mean())
    before = copy.deepcopy((state, test))
    routed = _valid(route.stream(state, test, budget), len(test.x))
    if not same((state, test), before):
        raise CheckFailed("stream changed what it was given; copy before writing")
    other = Outcomes(
        test.x,
        np.where(routed.paid, test.score, 1 - test.score),
        np.where(routed.paid, test.cost, test.cost * 9),
        np.where(routed.paid, test.signal, 0.0),
    )
    if not same(routed, route.stream(state, other, budget)):
        raise CheckFailed("models change with outcomes of models that were not called: nobody knows them")
    refuses(InvalidInput, "a budget of 0 is refused", route.stream, state, test, 0.0)
