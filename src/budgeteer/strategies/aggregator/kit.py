"""What aggregators share: the ranking of distinct answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from budgeteer.strategies.aggregator.protocol import Ranked


def rank_by(
    answers: Sequence[str | None], scores: Sequence[float], weigh: Callable[[list[float], float], float]
) -> list[Ranked]:
    """Rank the distinct answers by a weight, as :mod:`budgeteer.strategies.aggregator.protocol` says of ties and NaN.

    Args:
        answers: [n], None = a sample without an answer.
        scores: [n].
        weigh: (scores of an answer's samples, sum of the scores of all samples) -> weight of the answer. Where no
            sample has a score, each counts as 1.
    """
    scored = any(answer is not None and not math.isnan(s) for answer, s in zip(answers, scores, strict=True))
    scores_of: dict[str, list[float]] = {}
    for answer, score in zip(answers, scores, strict=True):
        if answer is not None and not (scored and math.isnan(score)):
            scores_of.setdefault(answer, []).append(score if scored else 1.0)
    total = math.fsum(score for own in scores_of.values() for score in own)
    ranked = [Ranked(answer, weigh(own, total)) for answer, own in scores_of.items()]
    # equal weights: the more frequent answer, then the one seen first (sorting is stable)
    return sorted(ranked, key=lambda entry: (-entry.weight, -len(scores_of[entry.answer])))


def share(own: list[float], total: float) -> float:
    """The share of an answer's scores in the sum of all scores; 0 if that sum is not positive."""
    return math.fsum(own) / total if total > 0 else 0.0
