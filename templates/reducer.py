"""One line: what goes into a prompt.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

import numpy as np

from budgeteer.context.fill import by_score
from budgeteer.context.protocol import Reducer
from budgeteer.core.plan import F64


def named(longest: int = 30) -> Reducer:
    """Keep the pieces that say most of the question's long words.

    Formula: a piece's score is the number of the question's words of 4 letters or more that stand in it.
    Helps when the question names what the evidence names; does not when it says it in other words.

    Args:
        longest: words of the question that are looked for at most, 1 or more.

    >>> from budgeteer.context.protocol import counter
    >>> talk = [{"role": "user", "content": text} for text in ("It is red.", "An orange cat.", "Which orange?")]
    >>> [message["content"] for message in named()(talk, 16, counter(lambda text: len(text.split())))]
    ['An orange cat.', 'Which orange?']
    """

    def score(question: str, texts: list[str]) -> F64:
        words = [word.strip(".,?!").lower() for word in question.split() if len(word) > 3][:longest]
        return np.array([float(sum(word in text.lower() for word in words)) for text in texts])

    return by_score(score)
