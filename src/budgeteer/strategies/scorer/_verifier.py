"""A scorer: the task's own check of an answer."""

from __future__ import annotations

from collections.abc import Sequence

from budgeteer.core.errors import InvalidInput
from budgeteer.solve import Task
from budgeteer.solve.strategy import CHECK
from budgeteer.strategies.kit.samples import Sample
from budgeteer.strategies.scorer.protocol import Score, Scorer


def verifier() -> Scorer:
    """Score by the task's verifier, ``task.check``; 0 for a sample without an answer.

    Raises (when bound):
        InvalidInput: the task has no verifier.
    """

    def bind(task: Task) -> Score:
        check = task.check
        if check is None:
            raise InvalidInput(f"question {task.question.id!r} has no verifier; give one, or choose another scorer")

        async def score(samples: Sequence[Sample]) -> list[float]:
            return [0.0 if sample.answer is None else float(check(sample.answer)) for sample in samples]

        return score

    return Scorer(bind, needs=frozenset({CHECK}))
