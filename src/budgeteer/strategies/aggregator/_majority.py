"""An aggregator: the most frequent answer."""

from __future__ import annotations

from budgeteer.strategies.aggregator.kit import rank_by, share
from budgeteer.strategies.aggregator.protocol import Aggregator


def majority() -> Aggregator:
    """Rank by number of samples; weights are shares of the samples with an answer. Scores are not used.

    "Self-Consistency Improves Chain of Thought Reasoning in Language Models", arXiv 2203.11171.

    >>> majority()(["7", None, "5", "7"], [0, 0, 1, 0])[0]
    Ranked(answer='7', weight=0.6666666666666666)
    """
    return lambda answers, scores: rank_by(answers, [1.0] * len(answers), share)
