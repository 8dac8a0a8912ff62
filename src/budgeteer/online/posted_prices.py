"""Posted prices: requests choose among resources themselves, and it does not pay to misreport what they want.

Paper: "New Philosopher Inequalities for Online Bayesian Matching, via Pivotal Sampling", arXiv 2407.15285.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.online._online_matching import Proposals


def posted_prices(rest: Callable[[NDArray[np.bool_]], float], free: NDArray[np.bool_]) -> F64:
    """The price of each resource: what the requests to come are worth with it, less what they are worth without it.

    ``price_i = rest(free) - rest(free without i)``, at least 0, and infinite for a resource that is taken. A request
    sees the prices, takes the resource of the largest value minus price if that is above 0 (:func:`taken`), and pays.
    The prices do not depend on what it says, so it can do no better than to say its true values, whatever they are:
    one of several types is told from no other. If ``rest`` is what some online method expects from here on, the prices
    followed by that method are worth at least as much as the method; so are, by induction, prices at every request
    (the reduction of Banihashem and others, SODA 2024, on which the paper's mechanism rests). With the value of the
    best online method the choices are its own.

    Helps when: several parties share resources and each knows best what its request is worth. Not when: values are
    known anyway, or ``rest`` is a bad guess: prices too high leave resources unused.

    Args:
        rest: free resources [n] -> expected value of the requests that come later; of :func:`expected` for a plan.
        free: [n] true for resources that are not used yet.

    Raises:
        InvalidInput: ``rest`` gives a number that is not finite.

    >>> worth = {(True, True): 5.0, (False, True): 3.0, (True, False): 4.5, (False, False): 0.0}
    >>> posted_prices(lambda free: worth[tuple(free.tolist())], np.array([True, True])).tolist()
    [2.0, 0.5]
    """
    prices, whole = np.full(len(free), math.inf), float(rest(free))
    for i in np.flatnonzero(free):
        without = free.copy()
        without[i] = False
        prices[i] = max(0.0, whole - float(rest(without)))
    if not (math.isfinite(whole) and np.all(np.isfinite(prices[free]))):
        raise InvalidInput("posted_prices needs an expected value that is finite for every set of free resources")
    return prices


def taken(value: F64, prices: F64) -> int:
    """The resource that a request takes: the one of the largest value minus price, -1 if none is above 0.

    >>> taken(np.array([3.0, 2.0]), np.array([2.0, 0.5])), taken(np.array([1.0, 0.2]), np.array([2.0, 0.5]))
    (1, -1)
    """
    gain = np.asarray(value, dtype=np.float64) - prices
    best = int(np.argmax(gain))
    return best if gain[best] > 0 else -1


def expected(plan: Proposals, time: int, free: NDArray[np.bool_], *, draws: int = 200, seed: int = 0) -> float:
    """What a plan of :func:`budgeteer.online.online_matching` is worth from a time on, by simulation.

    The same seed draws the same arrivals whatever is free, so that differences of two sets are less noisy.

    Args:
        plan: how requests are served.
        time: the first request that counts.
        free: [n] resources free then.
        draws: simulated streams; the error of the mean is that of one stream by their square root.
        seed: of arrivals and of the plan's own draws.
    """
    total = 0.0
    for draw in range(draws):
        left = free.copy()
        for at in range(time, plan.value.shape[1]):
            rng = np.random.default_rng([seed, draw, at])
            comes, before = rng.random() < plan.chance[at], left.copy()
            i = plan.serve(at, before, rng) if comes else -1
            left &= ~plan.given_up(at, before, rng)
            if i >= 0:
                total += float(plan.value[i, at])
                left[i] = False
    return total / draws
