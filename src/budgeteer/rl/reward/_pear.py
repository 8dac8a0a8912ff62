"""Less for a thinking that wanders, measured by its entropy (PEAR, arXiv 2510.08026)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, right
from budgeteer.rl.reward.kit import mean_where
from budgeteer.rl.reward.protocol import Columns, Reward


def pear(answer_weight: float = 1.0, wrong: float = 0.0) -> Reward:
    """1 less the entropy of the thinking beyond that of the answer, for a right row; ``wrong`` for a wrong one.

    With H_think and H_answer the mean entropies (nats, under the policy that sampled) of the tokens before and behind
    the one that closes the thinking: ``P = max(0, H_think - answer_weight * H_answer)`` and ``r = min(1, 1 - P)``. A
    row that never closes its thinking is all thinking, with H_answer = 0. Tokens of unknown entropy do not count.

    The paper's formula puts a right row below a wrong one once P > 1 (entropies of small models); here a right row gets
    ``wrong`` at least. Helps where redundant steps are those of high entropy; plain GRPO shortens outputs as well, so
    compare with it. As ``answer_weight`` grows, outputs get longer.

    Args:
        answer_weight: alpha of the paper; below 0 it compresses harder, and costs accuracy.
        wrong: reward of a wrong row, in [0, 1).

    Raises:
        InvalidInput: a value outside these.

    >>> entropy = [[0.5, 0.3, 9.0, 0.1], [0.5, 0.3, 0.1, 0.3], [0.0, 0.0, 0.0, 0.0]]
    >>> rows = Columns([1, 1, 0], [4, 4, 4], [0, 0, 0], [9, 9, 9], [1, 1, 1], closed=[3, -1, 3], entropy=entropy)
    >>> pear().score((), rows).round(9).tolist()
    [0.7, 0.7, 0.0]
    """
    if not (abs(answer_weight) <= 1e6 and 0 <= wrong < 1):
        raise InvalidInput(
            f"pear(answer_weight={answer_weight}, wrong={wrong}); give -1e6 to 1e6, and 0 or more and less than 1"
        )

    def score(state: object, rows: Columns) -> F64:
        entropy, closed = rows.column("entropy", "pear"), rows.column("closed", "pear")[:, None]
        place = np.arange(entropy.shape[1])
        known = (place < rows.length[:, None]) & np.isfinite(entropy)
        thinking = known & np.where(closed >= 0, place < closed - 1, True)  # the marker itself belongs to neither
        answer = known & (closed >= 0) & (place >= closed)
        penalty = np.maximum(mean_where(entropy, thinking) - answer_weight * mean_where(entropy, answer), 0.0)
        return np.where(right(rows.correct), np.maximum(1 - penalty, wrong), wrong)

    return Reward(score, needs=("entropy", "closed"))
