"""As long as the shortest right answer (ShorterBetter, arXiv 2504.21370)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, right
from budgeteer.rl.reward.kit import group_mean, numbered, share_of_cap, weights
from budgeteer.rl.reward.protocol import Columns, Reward, of_terms


def shorter_better(correct: float = 2.0, slope: float = 4.0) -> Reward:
    """``correct * c - slope * abs(n - best) / cap``, where best is the length of the prompt's shortest right rollout.

    Without a right rollout, best is the mean length of all, so that lengths draw together. Helps where the shortest
    right answer is no guess; a lucky short one sets the target for the whole prompt, and wrong answers of that length
    lose nothing. The paper has alpha = 2 and beta = 0.001 a token, which is a slope of 4 at a cap of 4,000.

    Args:
        correct: reward of being right, alpha of the paper, 0 or more.
        slope: lost for a distance of the whole cap, 0 or more.

    Raises:
        InvalidInput: a value below 0.

    >>> rows = Columns([1, 1, 0], [20, 45, 20], [0] * 3, [100] * 3, [1] * 3)
    >>> shorter_better().score((), rows).tolist()
    [2.0, 1.0, 0.0]
    """
    if not weights(correct, slope):
        raise InvalidInput(f"shorter_better(correct={correct}, slope={slope}); give 0 to 1e6")

    def terms(state: object, rows: Columns) -> dict[str, F64]:
        good = right(rows.correct)
        index, groups = numbered(rows.group)
        shortest = np.full(groups, np.inf)
        np.minimum.at(shortest, index[good], rows.length[good])
        best = np.where(np.isfinite(shortest[index]), shortest[index], group_mean(rows.length, rows.group))
        far = share_of_cap(np.abs(rows.length - best), rows)
        return {"correct": np.asarray(correct * good, np.float64), "length": np.asarray(-slope * far, np.float64)}

    return of_terms(terms)
