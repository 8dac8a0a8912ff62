"""Relevant and not said before: maximal marginal relevance.

Source: Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing
Summaries" (SIGIR 1998).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from budgeteer.context.fill import fill, similarities
from budgeteer.context.pieces import talk_of
from budgeteer.context.protocol import Count, Encode, Message, Reducer
from budgeteer.core.errors import InvalidInput


def mmr(encode: Encode, balance: float = 0.7) -> Reducer:
    """Keep one after another the piece that is most like the question and least like those kept.

    Formula: the next piece is argmax balance cos(q, x) - (1 - balance) max over kept s of cos(x, s).
    Helps when pieces repeat each other; does not when the evidence is a chain of pieces that resemble each other.

    Args:
        encode: texts -> vectors.
        balance: weight of the relevance, 0 to 1; at 1 nothing is held against repetition.

    >>> from budgeteer.context.encode import words
    >>> from budgeteer.context.protocol import counter
    >>> said = ("The cat sat.", "A cat sat.", "Rain, cat, rain.", "Where is the cat?")
    >>> talk = [{"role": "user", "content": text} for text in said]
    >>> [message["content"] for message in mmr(words, 0.5)(talk, 25, counter(lambda text: len(text.split())))]
    ['The cat sat.', 'Rain, cat, rain.', 'Where is the cat?']
    """
    if not 0 <= balance <= 1:
        raise InvalidInput(f"mmr:balance={balance}; give a weight from 0 to 1")

    def reduce(messages: Sequence[Message], budget: int, count: Count) -> list[Message]:
        talk = talk_of(messages)
        relevance, between = similarities(encode, talk.question, talk.texts)

        def pick(kept: Sequence[int], left: Sequence[int]) -> int:
            rows = np.asarray(left)
            said = between[np.ix_(rows, np.asarray(kept))].max(axis=1) if kept else 0.0
            return int(rows[np.argmax(balance * relevance[rows] - (1 - balance) * said)])

        return fill(talk, pick, budget, count)

    return reduce
