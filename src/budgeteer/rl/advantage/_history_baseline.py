"""Leave-one-out baseline shrunk to what earlier visits taught, so that even a single rollout has a baseline."""

from __future__ import annotations

import numpy as np

from budgeteer.core.plan import F64, I64

__all__ = ["history_baseline"]


def history_baseline(reward: F64, group: I64, prior: F64, *, strength: float = 2.0) -> F64:
    """A_i = r_i - b_i with b_i = (strength * prior + sum of the others' rewards) / (strength + n - 1).

    b_i does not depend on r_i, so the gradient is unbiased whatever the prior. Helps small groups, of one in
    particular; with many rollouts it is the leave-one-out baseline of RLOO (arXiv 2402.14740). A prompt without a
    prior (NaN) uses the plain leave-one-out mean, and advantage 0 when it is alone.

    Args:
        reward: [n]; group: [n]; prior: [g] expected reward of each group, NaN = unknown.
        strength: how many rollouts the prior is worth.

    Returns:
        [n] advantages.

    >>> history_baseline(np.array([1.0, 1.0, 0.0]), np.array([0, 1, 1]), np.array([0.25, np.nan])).tolist()
    [0.75, 1.0, -1.0]
    """
    groups = len(prior)
    others = np.bincount(group, minlength=groups)[group] - 1.0
    total = np.bincount(group, reward, minlength=groups)[group] - reward
    weight = np.where(np.isfinite(prior), strength, 0.0)[group]
    mass = weight + others
    guess = np.nan_to_num(prior)[group]
    baseline = np.divide(weight * guess + total, mass, out=reward.astype(np.float64).copy(), where=mass > 0)
    return np.asarray(reward - baseline, np.float64)
