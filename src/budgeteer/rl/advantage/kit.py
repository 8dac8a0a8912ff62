"""What advantages share: rewards against the mean of their group, or against a baseline that remembers."""

from __future__ import annotations

import numpy as np

from budgeteer.core.plan import F64, I64

__all__ = ["group_norm", "history_baseline"]


def group_norm(reward: F64, group: I64, groups: int, *, scale: bool = True, unbiased: bool = False) -> F64:
    """GRPO's advantage (arXiv 2402.03300): A_i = (r_i - mean of the group) / (std of the group).

    Groups are by index, not by position.

    A group of one, or with equal rewards, has advantage 0: the mean over itself is no baseline. (Some
    implementations give a group of one its raw reward.)

    Args:
        reward: [n]; group: [n] in [0, groups); scale: divide by the std (False = Dr.GRPO's form).
        unbiased: the std is that of a sample (over n - 1 rows) instead of a population (over n).

    Returns:
        [n] advantages.

    >>> group_norm(np.array([1.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 2]), 3).tolist()
    [1.0, -1.0, 0.0, 0.0]
    """
    count = np.maximum(np.bincount(group, minlength=groups), 1)
    mean = np.bincount(group, reward, minlength=groups) / count
    centred = reward - mean[group]
    if not scale:
        return centred
    over = np.maximum(count - 1, 1) if unbiased else count
    std = np.sqrt(np.bincount(group, centred**2, minlength=groups) / over)
    return np.divide(centred, std[group], out=np.zeros_like(centred), where=std[group] > 1e-8)


def history_baseline(reward: F64, group: I64, prior: F64, *, strength: float = 2.0) -> F64:
    """Leave-one-out baseline, shrunk to what earlier visits taught, so that even a single rollout has one.

    A_i = r_i - b_i with b_i = (strength * prior + sum of the others' rewards) / (strength + n - 1).

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
