"""Pivotal sampling: round fractions to yes or no, with exact chances and an exact total."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64

NEAR = 1e-12
"""Chances this close to 0 or 1 are 0 or 1: sums of rounded numbers must not leave a last coin with them."""


def pivotal(chance: F64, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Choose items such that item i is chosen with probability ``chance[i]`` and the number chosen hardly varies.

    Two fractions a and b meet; with s = a + b: if s <= 1 they become (s, 0) with probability a / s, else (0, s); if
    s > 1 they become (1, s - 1) with probability (1 - b) / (2 - s), else (s - 1, 1). The one that is still a fraction
    meets the next item; a last one is decided by a coin. Marginals are exact, the number chosen is the sum of the
    chances rounded down or up (exactly it, if it is whole), and choices are negatively correlated: no pair is
    chosen together more often than independently. O(n).

    When it helps: a fractional plan (keep each token with chance p, a share of a rollout each) must become a whole
    one of fixed size without favour, or the variance of its total cost matters. When not: independence itself is
    needed; here neighbours in the order exclude each other most, so shuffle if the order means something.

    Papers: Deville and Tille (1998); used for online matching in "New Philosopher Inequalities for Online Bayesian
    Matching, via Pivotal Sampling", arXiv 2407.15285.

    Args:
        chance: [n] in [0, 1].
        rng: one draw an item, and one for a last fraction.

    Returns:
        [n] true where chosen.

    >>> int(pivotal(np.full(10, 0.3), np.random.default_rng(0)).sum())
    3
    """
    given = np.asarray(chance, dtype=np.float64)
    if given.ndim != 1 or not np.all((given >= 0) & (given <= 1)):
        raise InvalidInput(f"pivotal needs chances [n] in [0, 1], got shape {given.shape}: {given.ravel()[:5]}")
    p, coins = given.tolist(), rng.random(len(given) + 1).tolist()
    chosen = given > 1 - NEAR
    i, a = -1, 0.0
    for j, b in enumerate(p):
        if b <= NEAR or b >= 1 - NEAR:
            continue
        if i < 0:
            i, a = j, b
            continue
        s, coin = a + b, coins[j]
        if s <= 1:
            i, a = (i if coin * s < a else j), s  # the other one is out
        else:
            first = coin * (2 - s) < 1 - b
            chosen[i if first else j] = True
            i, a = (j if first else i), s - 1
        if a >= 1 - NEAR:
            chosen[i] = True
        if a <= NEAR or a >= 1 - NEAR:
            i = -1
    if i >= 0:
        chosen[i] = coins[-1] < a  # a coin of its own: the others already decided who is left
    return chosen
