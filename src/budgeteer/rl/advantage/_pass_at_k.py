"""Credit for what a rollout adds to the best of k (Pass@k training, arXiv 2508.10751)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, right

if TYPE_CHECKING:
    from budgeteer.rl.recipe import View
    from budgeteer.rl.rollouts import Rollouts


def pass_at_k(rollouts: Rollouts, view: View, *, k: int = 4) -> F64:
    """[n] mean over all k-subsets of the prompt's m rollouts that contain row i of (best of the subset - R) / S.

    The best is 1 where a row of the subset is right. R = 1 - C(w, k) / C(m, k) is its mean over all subsets, w the
    wrong rows, and S = sqrt(R (1 - R)) its deviation. So a right row gets (1 - R) / S and a wrong one
    (1 - C(w - 1, k - 1) / C(m - 1, k - 1) - R) / S. A prompt whose best of k is certain, either way, has 0, and so has
    one with k rollouts or fewer. With k = 1 it is GRPO's advantage of right and wrong. Reads the reward as right or
    wrong (:func:`budgeteer.core.plan.right`).

    Args:
        k: size of a subset, >= 1.

    Raises:
        InvalidInput: ``k`` is below 1.
    """
    if k < 1:
        raise InvalidInput(f"pass-at-k has k={k}; give 1 or more")
    good, groups = right(rollouts.reward), len(rollouts.keys)
    size = np.bincount(rollouts.group, minlength=groups)
    wrong = size - np.bincount(rollouts.group, good, minlength=groups).astype(np.int64)
    mean = 1.0 - _none_right(wrong, size, k)
    deviation = np.sqrt(mean * (1.0 - mean))
    value = np.where(good, 1.0, (1.0 - _none_right(wrong - 1, size - 1, k - 1))[rollouts.group])
    deviation[size <= k] = 0.0
    above, scale = value - mean[rollouts.group], deviation[rollouts.group]
    return np.divide(above, scale, out=np.zeros_like(above), where=scale > 1e-8)


def _none_right(wrong: I64, size: I64, k: int) -> F64:
    """[g] C(wrong, k) / C(size, k): the chance that k rows drawn of ``size`` are all wrong."""
    chance = np.ones(len(size))
    for j in range(min(k, int(size.max(initial=0)) + 1)):  # 0 from j = size on
        chance *= np.divide(wrong - j, size - j, out=np.zeros(len(size)), where=size > j).clip(0.0)
    return chance
