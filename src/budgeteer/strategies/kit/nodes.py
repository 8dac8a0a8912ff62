"""Which node of a tree is grown next, the greedier the less of the budget is left."""

from __future__ import annotations

import numpy as np

from budgeteer.core.plan import F64

LEAST_RATIO = 0.02
"""Smallest share of the budget that counts: exponents above 1 / 0.02 are practically greedy, and would overflow."""


def chances(values: F64, ratio: float) -> F64:
    """Probability of each node: ``V ** (1 / ratio)``, normalised; a ratio below LEAST_RATIO counts as LEAST_RATIO.

    >>> chances(np.array([1.0, 2.0]), 1.0).round(3), chances(np.array([1.0, 2.0]), 0.25).round(3)
    (array([0.333, 0.667]), array([0.059, 0.941]))
    """
    z = np.log(values) / max(ratio, LEAST_RATIO)
    weights = np.exp(z - z.max())
    return np.asarray(weights / weights.sum())
