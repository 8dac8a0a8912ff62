"""The rules of online matching, and the best online method of small instances."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from budgeteer.check._common import CheckFailed, refuses
from budgeteer.core.errors import InvalidInput
from budgeteer.core.matching import MakeMatching, Matching
from budgeteer.core.plan import F64

RESOURCES, REQUESTS, INSTANCES, STREAMS = 3, 5, 4, 300
DEVIATIONS = 6.0
"""Standard errors by which the mean of the streams may be above the bound."""


def best_online(value: F64, chance: F64) -> float:
    """Expected value of the best online method, by dynamic programming over the sets of free resources.

    Args:
        value: [n, T]; work and memory grow as 2^n.
        chance: [T].

    >>> best_online(np.array([[1.0, 3.0]]), np.array([1.0, 0.5]))  # wait for half a chance of 3
    1.5
    """
    n, times = value.shape
    later = np.zeros(2**n)
    for t in range(times - 1, -1, -1):
        now = later.copy()
        for free in range(2**n):
            for i in range(n):
                if free >> i & 1:
                    now[free] = max(now[free], value[i, t] + later[free ^ (1 << i)])
        later = chance[t] * now + (1 - chance[t]) * later
    return float(later[-1])


def check_matching(make: MakeMatching, *, seed: int = 0) -> None:
    """Serve simulated streams and raise :class:`CheckFailed` at the first broken rule.

    Rules: a request is served by a free resource or by none (-1); serving changes neither ``free`` nor the plan, so
    that the same request and seed give the same resource; the given values and chances are not changed;
    ``bound`` is finite, not below what the best online method expects (by brute force), and the mean value of the
    streams is not above it, within 6 standard errors; bad input is refused with InvalidInput.

    Args:
        make: the method to check.
        seed: of the instances, the streams and what the method draws.
    """
    for turn in range(INSTANCES):
        rng = np.random.default_rng([seed, turn, 7])
        value = rng.exponential(1.0, (RESOURCES, REQUESTS)) * (rng.random((RESOURCES, REQUESTS)) < 0.7)
        chance = rng.uniform(0.2, 1.0, REQUESTS)
        given = value.copy(), chance.copy()
        plan = make(value, chance)
        if not (np.array_equal(given[0], value) and np.array_equal(given[1], chance)):
            raise CheckFailed("the method changed the values or chances it was given; copy before writing")
        best = best_online(value, chance)
        if not math.isfinite(plan.bound) or plan.bound < best - 1e-9:
            raise CheckFailed(f"bound is {plan.bound}, and the best online method expects {best}: no bound")
        got = np.array([_stream(plan, value, chance, rng) for _ in range(STREAMS)])
        mean, error = float(got.mean()), float(got.std()) / math.sqrt(STREAMS)
        if mean > plan.bound + DEVIATIONS * error + 1e-9:
            raise CheckFailed(f"streams brought {mean:.4f} in the mean, above the bound of {plan.bound:.4f}")
    for rule, bad, chances in (
        ("a negative value is refused", [[-1.0]], [0.5]),
        ("a value of nan is refused", [[math.nan]], [0.5]),
        ("values that are no table are refused", [1.0], [1.0]),
        ("chances of another number than the requests are refused", [[1.0]], [0.5, 0.5]),
        ("a chance of 0 is refused", [[1.0]], [0.0]),
        ("a chance above 1 is refused", [[1.0]], [1.5]),
    ):
        refuses(InvalidInput, rule, make, np.array(bad), np.array(chances))


def _stream(plan: Matching, value: F64, chance: F64, rng: np.random.Generator) -> float:
    """What one stream brings."""
    free: NDArray[np.bool_] = np.ones(len(value), np.bool_)
    total = 0.0
    for t in np.flatnonzero(rng.random(len(chance)) < chance).tolist():
        draw, before = int(rng.integers(2**32)), free.copy()
        i, again = (plan.serve(t, free, np.random.default_rng(draw)) for _ in range(2))
        if not np.array_equal(free, before):
            raise CheckFailed("serve changed free; the caller marks what is used")
        if i != again:
            raise CheckFailed(f"the same request and seed gave resource {i} and then {again}: serve keeps no memory")
        if i not in range(-1, len(value)):
            raise CheckFailed(f"serve returned {i!r}; return a resource, 0 to {len(value) - 1}, or -1")
        if i >= 0:
            if not free[i]:
                raise CheckFailed(f"serve returned resource {i}, which is not free")
            total += float(value[i, t])
            free[i] = False
    return total
