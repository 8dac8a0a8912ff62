"""A bonus for the length that was asked for (Train Long, Think Short, arXiv 2508.08940; RMT, arXiv 2509.24375)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.rl.reward.kit import weights
from budgeteer.rl.reward.protocol import Columns, Reward, of_terms


def triangular(bonus: float = 0.5, tidy: float = 0.0, share: float | None = None) -> Reward:
    """The verifier's score, ``bonus`` times a triangle over the length (0 at 0, 1 at a target, 0 at twice that), and
    ``tidy`` for a complete answer.

    With the target B the triangle is ``length / B`` up to B and ``2 - length / B`` from there to 2B. B is what the row
    was asked for (``variant=falling-budget``), or a share of its cap (a half, with ``max_tokens=staircase``). Helps to
    bring lengths to a target; punishes answers that are right and shorter, too, and pays wrong ones of the target
    length. RMT's ``(1 - w) * c + w * triangle`` is this with ``bonus = w / (1 - w)``, up to a factor.

    Args:
        bonus, tidy: 0 or more; what the papers have could not be seen.
        share: of its cap that is a row's target, in (0, 1]; None = the target is what the row was asked for.

    Raises:
        InvalidInput: a value outside these.

    >>> from budgeteer.core.plan import ENDED
    >>> cap, status = np.full(3, 100), np.full(3, ENDED, np.int8)
    >>> asked = {"target": [50, 50, 50]}
    >>> rows = Columns(np.array([1.0, 1.0, 0.0]), np.array([25, 50, 75]), np.zeros(3, np.int64), cap, status, **asked)
    >>> triangular().score((), rows).tolist()
    [1.25, 1.5, 0.25]
    """
    if not weights(bonus, tidy):
        raise InvalidInput(f"triangular(bonus={bonus}, tidy={tidy}); give 0 to 1e6")
    if share is not None and not 0 < share <= 1:
        raise InvalidInput(f"triangular(share={share}); give a share of the cap above 0, at most 1, or leave it out")

    def terms(state: object, rows: Columns) -> dict[str, F64]:
        target = rows.column("target", "triangular") if share is None else share * rows.max_tokens
        x = rows.length / np.maximum(target, 1e-9)
        made = {"correct": rows.correct, "length": bonus * np.clip(np.minimum(x, 2 - x), 0.0, 1.0)}
        if tidy:
            made["format"] = np.where(rows.column("answered", "triangular") >= 0, tidy, 0.0)
        return made

    needs = (*(("target",) if share is None else ()), *(("answered",) if tidy else ()))
    return of_terms(terms, needs=needs)
