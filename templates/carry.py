"""One line: which rollouts go on in a later step.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import CUT
from budgeteer.rl.recipe import Beginnings, Carry
from budgeteer.rl.rollouts import Rollouts


def second_chance(least: int = 8) -> Carry:
    """Rows that the end of a step's budget cut after ``least`` tokens go on once, in the next step.

    Helps when a step's budget is hard and many rows are cut; does nothing when none is.

    Args:
        least: tokens that a row has to have, >= 1.

    Raises:
        InvalidInput: fewer.
    """
    if least < 1:
        raise InvalidInput(f"second_chance(least={least}); give at least 1 token")

    def park(beginnings: Beginnings, rollouts: Rollouts, step: int) -> tuple[Any, Beginnings]:
        cut = (rollouts.status == CUT) & (rollouts.length >= least) & (rollouts.length < rollouts.cap)
        # version < 0: of no step yet; a row with tokens of an earlier step had its second chance
        old = (rollouts.version >= 0) & (rollouts.version < step)
        waits = cut & ~old.any(axis=1) & (rollouts.closed < 0)
        rows = np.flatnonzero(waits)
        width = int(rollouts.length[rows].max(initial=0))
        return waits, Beginnings(
            tuple(rollouts.keys[group] for group in rollouts.group[rows].tolist()),
            rollouts.tokens[rows, :width],
            rollouts.length[rows],
            rollouts.version[rows, :width].astype(np.int64),
        )

    return Carry(park)
