"""A small price on the way that the prompt does not need (VisionThink, arXiv 2507.13348)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, right
from budgeteer.rl.reward.counted import DELIBERATE
from budgeteer.rl.reward.kit import group_sum, weights
from budgeteer.rl.reward.protocol import Columns, Reward, of_terms


def visionthink(price: float = 0.1, least: float = 0.2, tidy: float = 0.5) -> Reward:
    """``c + tidy * [answer complete] - price * [the way that is not needed]``.

    A rollout answers at once, or takes the expensive way first: a larger image, a tool call, or thinking (the column
    ``deliberate``). Of the prompt's right rollouts, rho is the share that answered at once. From rho = ``least`` on the
    expensive way costs ``price``, below it answering at once does: there it was luck. Without a right rollout, rho is
    0 and answering at once is what costs.

    Helps a model that has both ways to take the cheap one where it suffices. A price that is always on the expensive
    way ends at always answering at once, as soon as guesses are sometimes right; no price ends at the other. The paper
    says so for every rollout; its code charges right ones only, and users of tools always.

    Args:
        price: 0 or more.
        least: share, in [0, 1].
        tidy: for a complete answer, 0 or more.

    Raises:
        InvalidInput: a value outside these.

    >>> rows = Columns([1, 1, 0, 0], [9] * 4, [0] * 4, [9] * 4, [1] * 4, deliberate=[1, 0, 0, 1], answered=[9] * 4)
    >>> visionthink().score((), rows).tolist()
    [1.4, 1.5, 0.5, 0.4]
    """
    if not (weights(price, tidy) and 0 <= least <= 1):
        raise InvalidInput(
            f"visionthink(price={price}, least={least}, tidy={tidy}); give 0 to 1e6, a share from 0 to 1, 0 to 1e6"
        )

    def terms(state: object, rows: Columns) -> dict[str, F64]:
        good, expensive = right(rows.correct), rows.column(DELIBERATE, "visionthink") > 0
        at_once, all_right = (group_sum(mask.astype(np.float64), rows.group) for mask in (good & ~expensive, good))
        enough = at_once >= least * all_right - 1e-9
        enough &= all_right > 0
        return {
            "correct": rows.correct,
            "format": np.where(rows.column("answered", "visionthink") >= 0, tidy, 0.0),
            "way": np.where(expensive == enough, -price, 0.0),
        }

    return of_terms(terms, needs=(DELIBERATE, "answered"))
