"""One piece after another by what it adds to a reranker's score: the rival of a search over combinations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from budgeteer.context.fill import fill, scores_of
from budgeteer.context.pieces import talk_of
from budgeteer.context.protocol import Count, Message, Reducer, Rerank


def marginal(rerank: Rerank) -> Reducer:
    """Keep one after another the piece that raises the reranker's score of the joined text most; stop where none does.

    Formula: the next piece is argmax W(kept + x) - W(kept), W(nothing) = -infinity.
    Helps when pieces repeat or distract each other; does not when two pieces are worth something only together. The
    reranker reads every piece once a step.

    Args:
        rerank: (question, texts) -> scores.

    >>> from budgeteer.context.encode import cosine, words
    >>> from budgeteer.context.protocol import counter
    >>> said = ("The cat is big.", "It rains.", "Is the cat big?")
    >>> talk = [{"role": "user", "content": text} for text in said]
    >>> [m["content"] for m in marginal(cosine(words))(talk, 50, counter(lambda text: len(text.split())))]
    ['The cat is big.', 'Is the cat big?']
    """

    def reduce(messages: Sequence[Message], budget: int, count: Count) -> list[Message]:
        talk = talk_of(messages)
        now = -np.inf
        gained: dict[tuple[int, ...], float] = {}

        def pick(kept: Sequence[int], left: Sequence[int]) -> int | None:
            nonlocal now
            now = gained.get(tuple(sorted(kept)), now)
            choices = [tuple(sorted((*kept, number))) for number in left]
            new = [choice for choice in choices if choice not in gained]
            texts = ["".join(talk.lines(choice)) for choice in new]
            gained.update(zip(new, scores_of(rerank, talk.question, texts).tolist(), strict=True))
            scores = [gained[choice] for choice in choices]
            best = int(np.argmax(scores))
            return left[best] if scores[best] > now else None

        return fill(talk, pick, budget, count)

    return reduce
