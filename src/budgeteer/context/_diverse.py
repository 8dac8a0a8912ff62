"""Relevant pieces of many kinds, of equal tokens: retrieval diversity.

Paper: "Beyond More Context: Retrieval Diversity Boosts Multi-Turn Intent Understanding", arXiv 2510.17940.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from budgeteer.context.fill import fill, similarities
from budgeteer.context.pieces import talk_of
from budgeteer.context.protocol import Count, Encode, Message, Reducer
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64

Kind = Callable[[str], str]
"""Text -> the intent that it shows."""


def diverse(
    encode: Encode, redundancy: float = 0.3, coverage: float = 0.2, kinds: int = 8, kind: Kind | None = None
) -> Reducer:
    """Keep one after another what is relevant, repeats little, and is of a kind that is not there yet.

    Formula: the next piece is argmax cos(q, x) - redundancy max over kept s of cos(x, s) + coverage [no kept piece is
    of x's kind]. The paper balances relevance, coverage of intents and variety within one budget of tokens; its weights
    were not seen, and this objective is ours. Without ``kind`` a piece's kind is the nearest of ``kinds`` pieces that
    lie far apart (farthest-first, beginning with the most relevant).
    Helps when near-duplicates crowd out other kinds; does not when every piece differs from all others anyway.

    Args:
        encode: texts -> vectors.
        redundancy: weight of the likeness to what is kept, 0 or more.
        coverage: what a new kind is worth, in units of a cosine, 0 or more.
        kinds: number of kinds where none are given, 1 or more.
        kind: text -> the intent that it shows.

    >>> from budgeteer.context.encode import words
    >>> from budgeteer.context.protocol import counter
    >>> said = ("book a room", "book a room", "book a seat", "book a room?")
    >>> talk = [{"role": "user", "content": text} for text in said]
    >>> find = diverse(words, coverage=0.8, kind=lambda text: text.split()[-1])
    >>> [message["content"] for message in find(talk, 25, counter(lambda text: len(text.split())))]
    ['book a room', 'book a seat', 'book a room?']
    """
    if not (redundancy >= 0 and coverage >= 0 and kinds >= 1):
        raise InvalidInput(
            f"diverse:redundancy={redundancy},coverage={coverage},kinds={kinds}; give weights from 0 and kinds from 1"
        )

    def reduce(messages: Sequence[Message], budget: int, count: Count) -> list[Message]:
        talk = talk_of(messages)
        relevance, between = similarities(encode, talk.question, talk.texts)
        label = [kind(text) for text in talk.texts] if kind else [str(k) for k in _far_apart(relevance, between, kinds)]

        def pick(kept: Sequence[int], left: Sequence[int]) -> int:
            rows, seen = np.asarray(left), {label[number] for number in kept}
            said = between[np.ix_(rows, np.asarray(kept))].max(axis=1) if kept else 0.0
            new = np.array([label[number] not in seen for number in left])
            return int(rows[np.argmax(relevance[rows] - redundancy * said + coverage * new)])

        return fill(talk, pick, budget, count)

    return reduce


def _far_apart(relevance: F64, between: F64, kinds: int) -> list[int]:
    """The number of the nearest centre of each piece; a centre is the piece least like the centres before it."""
    if not len(relevance):
        return []
    centres = [int(np.argmax(relevance))]
    while len(centres) < min(kinds, len(relevance)):
        centres.append(int(np.argmin(between[:, centres].max(axis=1))))
    return [int(k) for k in np.argmax(between[:, centres], axis=1)]
