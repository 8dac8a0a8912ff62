"""One line: how good a sample is.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

from collections.abc import Sequence

from budgeteer.solve import Task
from budgeteer.strategies.kit.samples import Sample
from budgeteer.strategies.scorer import Score, Scorer


def short_first() -> Scorer:
    """Short traces are good: the score is 1 / (1 + tokens).

    Helps when a model rambles where it is wrong; does not when hard questions need long traces.
    """

    def bind(task: Task) -> Score:
        async def score(samples: Sequence[Sample]) -> list[float]:
            return [1 / (1 + sample.tokens) for sample in samples]

        return score

    return Scorer(bind)
