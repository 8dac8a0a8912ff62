"""A scorer: how sure the model was of its tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

from budgeteer.models.model import LOGPROBS
from budgeteer.strategies.kit.samples import Sample
from budgeteer.strategies.scorer.protocol import Scorer


def mean_logprob() -> Scorer:
    """Score by the geometric mean probability of a sample's tokens, ``exp(mean log p)`` in (0, 1]: how sure the model
    was."""

    async def score(samples: Sequence[Sample]) -> list[float]:
        return [math.nan if sample.logprob is None else math.exp(sample.logprob) for sample in samples]

    return Scorer(lambda task: score, needs=frozenset({LOGPROBS}))
