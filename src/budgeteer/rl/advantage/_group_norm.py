"""GRPO's advantage: reward normalised within its group (arXiv 2402.03300)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.plan import F64, I64

__all__ = ["group_norm"]


def group_norm(reward: F64, group: I64, groups: int, *, scale: bool = True) -> F64:
    """A_i = (r_i - mean of the group) / (std of the group), grouped by index and not by position.

    A group of one, or with equal rewards, has advantage 0: the mean over itself is no baseline. (Some
    implementations give a group of one its raw reward.)

    Args:
        reward: [n]; group: [n] in [0, groups); scale: divide by the population std (False = Dr.GRPO's form).

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
    std = np.sqrt(np.bincount(group, centred**2, minlength=groups) / count)
    return np.divide(centred, std[group], out=np.zeros_like(centred), where=std[group] > 1e-8)
