"""One line: which rollouts or tokens count how much in the update.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.rl.recipe import Importance, View
from budgeteer.rl.rollouts import Rollouts


def first_tokens(most: int = 32) -> Importance:
    """Only the first tokens that were sampled in each row count: weight 1 for ``most`` of them, 0 for the rest.

    Helps when the beginning decides; does not when what goes wrong comes late.

    Args:
        most: tokens of a row, >= 1.

    Raises:
        InvalidInput: fewer.
    """
    if most < 1:
        raise InvalidInput(f"first_tokens(most={most}); give at least 1 token")

    def weigh(rollouts: Rollouts, view: View) -> F64:
        sampled = rollouts.sampled  # [n, t]
        return np.where(sampled & (np.cumsum(sampled, axis=1) <= most), 1.0, 0.0)

    return Importance(weigh)
