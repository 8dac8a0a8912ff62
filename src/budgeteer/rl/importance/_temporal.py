"""Learn from the ends of rollouts first, and from all of them later (TP-Schedule, arXiv 2605.25381)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.rl.recipe import Importance, View
from budgeteer.rl.rollouts import Rollouts


def temporal(start: float = 0.99, until: float = 0.8) -> Importance:
    """Weight 0 for the first ``floor(rho * length)`` tokens of a row, 1 for the rest, with rho falling over the run.

    ``rho = start * (1 - spent / until)``, at least 0: from the last hundredth of each rollout at first to all of it
    when the share ``until`` of the run is done. A row keeps at least its last token. Saves no tokens; says where the
    gradient goes. Helps where late tokens are easier to learn than early decisions; does not for short rollouts.

    Args:
        start: in [0, 1).
        until: in (0, 1].

    Raises:
        InvalidInput: a value outside these.
    """
    if not (0 <= start < 1 and 0 < until <= 1):
        raise InvalidInput(f"temporal(start={start}, until={until}); give 0 <= start < 1 and 0 < until <= 1")

    def weigh(rollouts: Rollouts, view: View) -> F64:
        rho = start * (1 - min(view.spent / until, 1.0))
        first = np.minimum(np.floor(rho * rollouts.length), np.maximum(rollouts.length - 1, 0))
        place = np.arange(rollouts.tokens.shape[1])
        return np.where((place >= first[:, None]) & (place < rollouts.length[:, None]), 1.0, 0.0)

    return Importance(weigh)
