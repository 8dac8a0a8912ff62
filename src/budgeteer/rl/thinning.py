"""Leave rows of a group's larger side out of the update, unbiased: backward passes are spent where they tell most.

With right and wrong rows of one advantage each, a group's gradient is a constant times (mean over the right rows minus
mean over the wrong rows). Its variance is that of two means, 1 / n_right + 1 / n_wrong in units of a row's, so rows of
a side that is much larger than the other add cost and hardly precision. PODS (arXiv 2504.13818) drops rows of largest
and smallest reward without reweighting; here the rows that stay stand for those that do not.
"""

from __future__ import annotations

import numpy as np

from budgeteer.core.plan import F64, I64


def thin(advantage: F64, group: I64, ratio: float, rng: np.random.Generator) -> F64:
    """[n] weight of each row in the update: 0 = left out; the expectation of each is 1.

    In each group the side (positive or negative advantage) with more rows keeps at most ``ratio`` times the rows of
    the other, chosen at random, each with weight (rows of the side) / (rows kept). Rows of a group with one side only
    keep their weight of 1, and so do rows of advantage 0.

    Args:
        advantage: [n].
        group: [n] index of each row's group.
        ratio: >= 1.

    >>> thin(np.array([1.0, -3, 1, 1]), np.zeros(4, np.int64), 1.0, np.random.default_rng(0)).tolist()
    [0.0, 1.0, 0.0, 3.0]
    """
    side = 2 * group + (advantage > 0)
    signed = advantage != 0
    sides = np.bincount(side[signed], minlength=2 * int(group.max(initial=0)) + 2)
    other = sides.reshape(-1, 2)[:, ::-1].ravel()
    keep = np.where(other > 0, np.minimum(sides, np.ceil(ratio * other)), sides)
    order = np.lexsort((rng.random(len(group)), side, ~signed))
    first = np.concatenate([[0], np.cumsum(sides)])[side]
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group))
    stays = ~signed | (rank - first < keep[side])
    weight = np.where(signed, sides[side] / np.maximum(keep[side], 1), 1.0)
    return np.where(stays, weight, 0.0)
