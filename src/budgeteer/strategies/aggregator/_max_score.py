"""An aggregator: the answer of the best sample."""

from __future__ import annotations

from budgeteer.strategies.aggregator.kit import rank_by
from budgeteer.strategies.aggregator.protocol import Aggregator


def max_score() -> Aggregator:
    """Rank by the best score of an answer's samples: best of n.

    >>> [ranked.answer for ranked in max_score()(["7", "5", "7"], [0.2, 0.6, 0.3])]
    ['5', '7']
    """
    return lambda answers, scores: rank_by(answers, scores, lambda own, total: max(own))
