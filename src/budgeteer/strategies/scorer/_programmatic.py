"""A scorer: a function of question and trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from budgeteer.solve import Task
from budgeteer.strategies.kit.samples import Sample
from budgeteer.strategies.scorer.protocol import Score, Scorer


def programmatic(check: Callable[[str, str], float]) -> Scorer:
    """Score by a function of question and trace: whether it compiles, for example, or whether every step is right.

    Args:
        check: (question text, trace) -> score.

    >>> shorter = programmatic(lambda question, trace: 1 / (1 + len(trace)))
    """

    def bind(task: Task) -> Score:
        async def score(samples: Sequence[Sample]) -> list[float]:
            return [float(check(task.question.text, sample.text)) for sample in samples]

        return score

    return Scorer(bind)
