"""A scorer: the model's own yes or no."""

from __future__ import annotations

import math
import re

from budgeteer.strategies.scorer.judge import judge
from budgeteer.strategies.scorer.protocol import Scorer

YES_OR_NO = """Question: {question}

Proposed solution:
{trace}

Is the proposed solution correct? Answer Yes or No.
Answer:"""


def self_evaluation(
    template: str = YES_OR_NO, *, votes: int = 1, max_tokens: int = 4, temperature: float = 0.0
) -> Scorer:
    """Score by the model's own judgement: the share of ``votes`` judgements that say yes. Charged, stage "judge".

    The model is asked in a message if the style asks in messages, else in raw text. A judgement that says neither yes
    nor no does not count; the score is NaN if none counts, or none fits the budget.

    Args:
        template: with ``{question}`` and ``{trace}``.
        votes: judgements of each sample; more than one needs a temperature above 0.
        max_tokens: cap of a judgement.
        temperature: of the judgements.
    """
    return judge(template, _yes, votes, max_tokens, temperature)


def _yes(text: str) -> float:
    word = re.search(r"\b(yes|no)\b", text, re.IGNORECASE)
    return math.nan if word is None else float(word[1].lower() == "yes")
