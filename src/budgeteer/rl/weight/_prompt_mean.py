"""Every prompt weighs the same, however many rollouts it got: what ragged groups need to stay on the objective."""

from __future__ import annotations

import numpy as np

from budgeteer.core.plan import F64, I64

__all__ = ["prompt_mean"]


def prompt_mean(length: I64, group: I64) -> F64:
    """[n] weight of each token of row i: 1 / (prompts * rollouts of its prompt * mean length of the batch).

    The sum over a row's tokens is not divided by the row's own length, so the policy gradient of each prompt is
    estimated without length bias; an allocation changes its variance and not its expectation.

    >>> prompt_mean(np.array([2, 2, 2]), np.array([0, 1, 1])).tolist()
    [0.25, 0.125, 0.125]
    """
    count = np.bincount(group)
    prompts = max(int((count > 0).sum()), 1)
    if not len(length):
        return np.zeros(0)
    return np.asarray(1.0 / (prompts * count[group] * max(float(length.mean()), 1.0)), np.float64)
