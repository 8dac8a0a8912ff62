"""Truncation: thinking that reaches its cap is cut, and the row has no answer. A baseline."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.steer import ABORT, CONTINUE, Action, Need, Snapshot, State, Steer, shared


@shared
def truncate(most: int = 1024) -> Steer:
    """ABORT a row whose thinking is open after ``most`` tokens.

    It is budget forcing without the forced answer. Helps as a baseline, or where a forced answer is worse than none;
    does not wherever a guess counts.

    Args:
        most: tokens of thinking, >= 0.

    >>> from budgeteer.core.steer import Snapshot
    >>> truncate(8).step((), Snapshot.of([7, 8, 9], closed=[-1, -1, 5]))[0].decision.tolist()
    [0, 2, 0]
    """
    if most < 0:
        raise InvalidInput(f"truncate(most={most}); give 0 or more tokens")

    def step(state: State, now: Snapshot) -> tuple[Action, State]:
        late = (now.closed < 0) & (now.length >= most)
        return Action(np.where(late, ABORT, CONTINUE).astype(np.int8)), state

    return Steer(lambda rows: (), step, frozenset({Need.TOKENS, Need.MARKERS}))
