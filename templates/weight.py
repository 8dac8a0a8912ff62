"""One line: how much each token of a rollout weighs in the loss.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

import numpy as np

from budgeteer.core.plan import F64, I64


def root_mean(length: I64, group: I64) -> F64:
    """Between the mean over tokens and the mean over rollouts: a rollout weighs the root of its length.

    Formula: w_i = length_i^-0.5 / sum over j of length_j^0.5, so that the weights of all tokens sum to 1.
    Helps when long rollouts neither should drown the others nor be drowned; does not when all are as long.

    Args:
        length: [n] tokens of each row.
        group: [n] index of its prompt; not looked at here.

    >>> root_mean(np.array([1, 4]), np.array([0, 0])).round(4).tolist()
    [0.3333, 0.1667]
    """
    root = np.sqrt(np.maximum(length, 1).astype(np.float64))
    return 1 / (root * max(float(root.sum()), 1.0))
