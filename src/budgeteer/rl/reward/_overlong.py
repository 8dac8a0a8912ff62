"""DAPO's soft overlong punishment (arXiv 2503.14476, equation 13)."""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput
from budgeteer.rl.reward.kit import near_cap
from budgeteer.rl.reward.protocol import Reward, of_terms


def overlong(share: float = 0.2) -> Reward:
    """The verifier's score, less a penalty for a row that comes near its cap.

    With the cap L and a buffer B = share * L: 0 up to a length of L - B, then ``(L - B - length) / B``, which falls to
    -1 at L; the sum is the reward. (The paper has L = 20,480 and B = 4,096.)

    Args:
        share: of the cap that is the buffer, in (0, 1].

    >>> from budgeteer.core.plan import ENDED
    >>> import numpy as np
    >>> from budgeteer.rl.reward import Columns
    >>> cap, status = np.full(3, 100), np.full(3, ENDED, np.int8)
    >>> rows = Columns(np.array([1.0, 1.0, 0.0]), np.array([80, 90, 100]), np.zeros(3, np.int64), cap, status)
    >>> overlong().score((), rows).tolist()
    [1.0, 0.5, -1.0]
    """
    if not 0 < share <= 1:
        raise InvalidInput(f"overlong(share={share}); give a share of the cap above 0, at most 1")

    return of_terms(lambda state, rows: {"correct": rows.correct, "length": near_cap(rows, share)})
