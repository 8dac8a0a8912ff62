"""A scorer: the model's rating of how much the last step helped."""

from __future__ import annotations

import math
import re

from budgeteer.strategies.scorer.judge import judge
from budgeteer.strategies.scorer.protocol import Scorer

PROGRESS = """Question: {question}

Work so far:
{trace}

How much closer to the answer did the last step come? Rate it from -5 (it did harm) over 0 (nothing new) to 5.
Rating:"""


def progress(template: str = PROGRESS, *, votes: int = 1, max_tokens: int = 4, temperature: float = 0.0) -> Scorer:
    """Score by the model's rating of how much the last step helped, in [-1, 1]: the residual critic of a value tree.

    Charged, stage "judge". Arguments as in :func:`self_evaluation`; ratings are whole numbers from -5 to 5.
    """
    return judge(template, _rating, votes, max_tokens, temperature)


def _rating(text: str) -> float:
    number = re.search(r"[-+]?\d+", text)
    return math.nan if number is None else max(-5, min(5, int(number[0]))) / 5
