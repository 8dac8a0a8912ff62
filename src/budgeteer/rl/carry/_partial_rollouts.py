"""Rollouts that the end of a step's budget cut short go on in the next step (C3PO++ of Ring-1T, arXiv 2510.18855)."""

from __future__ import annotations

from typing import Any

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import CUT, I64
from budgeteer.rl.recipe import Beginnings, Carry
from budgeteer.rl.rollouts import Rollouts


def partial_rollouts(most_age: int = 4, trained: bool = False) -> Carry:
    """Keep the tokens of rows that were still thinking when the budget of the step ended, and continue them next time.

    The continued row joins its prompt's new rollouts. Its beginning is from an older policy: it is only read, or, with
    ``trained``, learnt from with the log-probabilities of the policies that sampled it; then use a ratio that leaves
    out tokens from which the policy has moved away, such as ``icepop``. A row whose oldest token is ``most_age`` steps
    old is given up, and so is one that has closed its thinking. Helps where a step's budget is hard and many rows are
    cut (otherwise their tokens are wasted); does nothing where none is.

    Args:
        most_age: age in steps, at least 1, at which a row is given up.
        trained: whether the beginnings carry gradient, too.

    Raises:
        InvalidInput: an age below 1.
    """
    if most_age < 1:
        raise InvalidInput(f"partial_rollouts(most_age={most_age}); give at least 1 step")

    def park(beginnings: Beginnings, rollouts: Rollouts, step: int) -> tuple[Any, Beginnings]:
        cut = (
            (rollouts.status == CUT) & (rollouts.length < rollouts.cap) & (rollouts.closed < 0) & (rollouts.length > 0)
        )
        known = np.where(rollouts.version >= 0, rollouts.version, step)
        waits = cut & (step + 1 - known.min(axis=1, initial=step) <= most_age)
        rows: I64 = np.flatnonzero(waits)
        width = int(rollouts.length[rows].max(initial=0))
        return waits, Beginnings(
            tuple(rollouts.keys[g] for g in rollouts.group[rows].tolist()),
            rollouts.tokens[rows, :width],
            rollouts.length[rows],
            rollouts.version[rows, :width].astype(np.int64),
            rollouts.logprob[rows, :width].astype(np.float64) if trained else None,
        )

    return Carry(park)
