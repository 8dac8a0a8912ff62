"""Scores from a reward model, which runs beside the budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from budgeteer.models.reward import Rewards
from budgeteer.solve import Task
from budgeteer.strategies.kit.samples import Sample
from budgeteer.strategies.scorer.protocol import Score, Scorer


def rewarded(rate: Rewards, steps_of: Callable[[str], list[str]], reduce: Callable[[Sequence[float]], float]) -> Scorer:
    """The scorer that cuts traces into steps and reduces the rewards of the steps to a score.

    Args:
        rate: (question, steps of each trace) -> the rewards of each trace's steps; None = it has no score.
        steps_of: trace -> its steps; a trace without steps has no score (NaN) and is not sent to the model.
        reduce: rewards of a trace's steps -> its score.
    """

    def bind(task: Task) -> Score:
        async def score(samples: Sequence[Sample]) -> list[float]:
            steps = [steps_of(sample.text) for sample in samples]
            wanted = [i for i, own in enumerate(steps) if own]
            scores = [math.nan] * len(samples)
            rated = await rate(task.question.text, [steps[i] for i in wanted]) if wanted else []
            for i, rewards in zip(wanted, rated, strict=True):
                if rewards is not None:
                    scores[i] = reduce(rewards)
            return scores

        return score

    return Scorer(bind)
