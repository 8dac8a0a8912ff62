"""Every rollout weighs the same, whatever its length (GRPO, arXiv 2402.03300)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.plan import F64, I64

__all__ = ["sequence_mean"]


def sequence_mean(length: I64, group: I64) -> F64:
    """[n] weight of each token of row i: 1 / (rows * tokens of the row).

    >>> sequence_mean(np.array([1, 2]), np.array([0, 0])).tolist()
    [0.5, 0.25]
    """
    return np.asarray(1.0 / (max(len(length), 1) * np.maximum(length, 1)), np.float64)
