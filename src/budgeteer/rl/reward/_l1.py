"""As long as the prompt asks, or at most so long (L1: LCPO-Exact and LCPO-Max, arXiv 2503.04697)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, right
from budgeteer.rl.reward.kit import share_of_cap, weights
from budgeteer.rl.reward.protocol import Columns, Reward, of_terms


def l1(slope: float = 1.2, *, at_most: bool = False, slack: float = 0.5) -> Reward:
    """Rightness, less ``slope`` times the distance from the length that was asked for; or right within that length.

    With the target t, the length n and the cap L: exact is ``c - slope * abs(t - n) / L``; with ``at_most`` it is
    ``c * clip(slope * (t - n) / L + slack, 0, 1)``, which still pays something for a right answer that is a little too
    long, and more the further a right answer stays below.

    Exact teaches to follow a number, and pays wrong answers of the asked length, too; ``at_most`` pays nothing for
    wrong ones. The target is what the row was asked for (``variant=drawn-budget``). The paper has 0.0003 a token,
    which is 1.2 at a cap of 4,000.

    Args:
        slope: lost for a distance of the whole cap, 0 or more.
        at_most: LCPO-Max instead of LCPO-Exact.
        slack: of LCPO-Max, in [0, 1]: reward of a right answer of exactly the target.

    Raises:
        InvalidInput: a value outside these.

    >>> rows = Columns([1, 1, 0], [50, 75, 50], [0] * 3, [100] * 3, [1] * 3, target=[50] * 3)
    >>> l1().score((), rows).round(9).tolist(), l1(at_most=True).score((), rows).round(9).tolist()
    ([1.0, 0.7, 0.0], [0.5, 0.2, 0.0])
    """
    if not (weights(slope) and 0 <= slack <= 1):
        raise InvalidInput(f"l1(slope={slope}, slack={slack}); give a slope of 0 to 1e6, and a slack from 0 to 1")

    def below(rows: Columns) -> F64:
        return share_of_cap(rows.column("target", "l1") - rows.length, rows)

    def within(state: object, rows: Columns) -> F64:
        return np.asarray(right(rows.correct) * np.clip(slope * below(rows) + slack, 0.0, 1.0), np.float64)

    def exact(state: object, rows: Columns) -> dict[str, F64]:
        return {"correct": right(rows.correct).astype(np.float64), "length": -slope * np.abs(below(rows))}

    return Reward(within, needs=("target",)) if at_most else of_terms(exact, needs=("target",))
