"""Aggregators: one answer out of many samples.

An aggregator ranks the distinct answers, best first: ``(answers, scores) -> list[Ranked]``. Samples without an answer
(None) do not count. A score of NaN means that the sample has none; such samples count only if no sample has a score.
Ties go to the answer with more samples, then to the one that was seen first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from budgeteer.core.errors import InvalidInput


class Ranked(NamedTuple):
    """A distinct answer, and the weight that ranks it: a share of the votes, or a score (in [0, 1] if scores are)."""

    answer: str
    weight: float


Aggregator = Callable[[Sequence[str | None], Sequence[float]], list[Ranked]]
"""(answers [n], scores [n]) -> the distinct answers, best first."""


def majority() -> Aggregator:
    """Rank by number of samples; weights are shares of the samples with an answer. Scores are not used.

    "Self-Consistency Improves Chain of Thought Reasoning in Language Models", arXiv 2203.11171.

    >>> majority()(["7", None, "5", "7"], [0, 0, 1, 0])[0]
    Ranked(answer='7', weight=0.6666666666666666)
    """
    return lambda answers, scores: _by(answers, [1.0] * len(answers), _share)


def weighted_majority() -> Aggregator:
    """Rank by the sum of the scores of an answer's samples, as a share of the sum of all scores.

    >>> weighted_majority()(["7", "5", "7"], [0.2, 0.6, 0.2])[0]
    Ranked(answer='5', weight=0.6)
    """
    return lambda answers, scores: _by(answers, scores, _share)


def max_score() -> Aggregator:
    """Rank by the best score of an answer's samples: best of n.

    >>> [ranked.answer for ranked in max_score()(["7", "5", "7"], [0.2, 0.6, 0.3])]
    ['5', '7']
    """
    return lambda answers, scores: _by(answers, scores, lambda own, every: max(own))


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
        ranked = _by(answers, scores, lambda own, every: math.fsum(own) / len(own))
        return sorted(ranked, key=lambda entry: entry.answer not in kept)

    return rank


def frequent(answers: Sequence[str | None], alpha: float) -> set[str]:
    """The answers with at least a share ``alpha`` of the samples that have an answer; all answers if none has it."""
    shares = majority()(answers, [])
    return {share.answer for share in shares if share.weight >= alpha} or {share.answer for share in shares}


def _share(own: list[float], every: float) -> float:
    return math.fsum(own) / every if every > 0 else 0.0


def _by(
    answers: Sequence[str | None], scores: Sequence[float], worth: Callable[[list[float], float], float]
) -> list[Ranked]:
    scored = any(answer is not None and not math.isnan(s) for answer, s in zip(answers, scores, strict=True))
    of: dict[str, list[float]] = {}
    for answer, score in zip(answers, scores, strict=True):
        if answer is not None and not (scored and math.isnan(score)):
            of.setdefault(answer, []).append(score if scored else 1.0)
    every = math.fsum(score for own in of.values() for score in own)
    ranked = [Ranked(answer, worth(own, every)) for answer, own in of.items()]
    # equal weights: the more frequent answer, then the one seen first (sorting is stable)
    return sorted(ranked, key=lambda entry: (-entry.weight, -len(of[entry.answer])))
