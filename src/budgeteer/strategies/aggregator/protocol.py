"""Aggregators: one answer out of many samples.

An aggregator ranks the distinct answers, best first: ``(answers, scores) -> list[Ranked]``. Samples without an answer
(None) do not count. A score of NaN means that the sample has none; such samples count only if no sample has a score.
Ties go to the answer with more samples, then to the one that was seen first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = ["Aggregator", "Ranked"]


class Ranked(NamedTuple):
    """A distinct answer, and the weight that ranks it: a share of the votes, or a score (in [0, 1] if scores are)."""

    answer: str
    weight: float


Aggregator = Callable[[Sequence[str | None], Sequence[float]], list[Ranked]]
"""(answers [n], scores [n]) -> the distinct answers, best first."""
