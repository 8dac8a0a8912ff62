"""Texts as vectors of their words: TF-IDF."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from budgeteer.core.plan import F64

WORD = re.compile(r"\w+")
"""A word, of a text in lower case."""


def tf_idf(texts: Sequence[str], among: int | None = None, word: re.Pattern[str] = WORD) -> F64:
    """Counted words, weighted by how few texts have each: ``tf ln(1 + n / df)``, [texts, words].

    Args:
        texts: one a row.
        among: n, how many of the texts, from the first on, say which words there are and how few have each; None = all.
        word: what a word is, of a text in lower case.

    >>> (tf_idf(["a cat", "a dog"]) > 0).astype(int).tolist()
    [[1, 1, 0], [1, 0, 1]]
    >>> (tf_idf(["a cat", "a dog"], among=1) > 0).astype(int).tolist()
    [[1, 1], [1, 0]]
    """
    n = len(texts) if among is None else among
    counts = [Counter(word.findall(text.lower())) for text in texts]
    seen = Counter(known for count in counts[:n] for known in count)
    place = {known: column for column, known in enumerate(sorted(seen))}
    vectors = np.zeros((len(texts), max(1, len(place))))
    for row, count in enumerate(counts):
        for known in count.keys() & place.keys():
            vectors[row, place[known]] = count[known] * np.log(1 + n / seen[known])
    return vectors
