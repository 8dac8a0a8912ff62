"""An aggregator: the best mean score among frequent answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from budgeteer.core.errors import InvalidInput
from budgeteer.strategies.aggregator._majority import majority
from budgeteer.strategies.aggregator.kit import rank_by
from budgeteer.strategies.aggregator.protocol import Aggregator, Ranked

__all__ = ["frequent", "majority_filter"]


def majority_filter(alpha: float = 0.1) -> Aggregator:
    """Best-of-Majority: rank the answers with at least a share ``alpha`` of the samples by their mean score.

    Answers with a smaller share come after all of these; if all have a smaller share, none is moved back. ``alpha = 0``
    is best of n by mean score, and an alpha above the share of the second most frequent answer is the majority.

    "Best-of-Majority: Minimax-Optimal Strategy for Pass@k Inference Scaling", arXiv 2510.03199.

    >>> majority_filter(0.3)(["7", "5", "7", "6", "6"], [0.2, 1.0, 0.2, 0.5, 0.1])[0]
    Ranked(answer='6', weight=0.3)
    """
    if not 0 <= alpha <= 1:
        raise InvalidInput(f"majority_filter(alpha={alpha}); it is a share, 0 to 1")

    def rank(answers: Sequence[str | None], scores: Sequence[float]) -> list[Ranked]:
        kept = frequent(answers, alpha)
        ranked = rank_by(answers, scores, lambda own, total: math.fsum(own) / len(own))
        return sorted(ranked, key=lambda entry: entry.answer not in kept)

    return rank


def frequent(answers: Sequence[str | None], alpha: float) -> set[str]:
    """The answers with at least a share ``alpha`` of the samples that have an answer; all answers if none has it."""
    votes = majority()(answers, [])
    return {entry.answer for entry in votes if entry.weight >= alpha} or {entry.answer for entry in votes}
