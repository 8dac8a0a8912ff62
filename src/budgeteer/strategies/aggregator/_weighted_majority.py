"""An aggregator: the answer with the largest sum of scores."""

from __future__ import annotations

from budgeteer.strategies.aggregator.kit import rank_by, share
from budgeteer.strategies.aggregator.protocol import Aggregator


def weighted_majority() -> Aggregator:
    """Rank by the sum of the scores of an answer's samples, as a share of the sum of all scores.

    >>> weighted_majority()(["7", "5", "7"], [0.2, 0.6, 0.2])[0]
    Ranked(answer='5', weight=0.6)
    """
    return lambda answers, scores: rank_by(answers, scores, share)
