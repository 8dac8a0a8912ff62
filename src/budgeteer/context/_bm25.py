"""What shares rare words with the question: BM25 by bm25s.

Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009); library arXiv
2407.03618.
"""

from __future__ import annotations

import numpy as np

from budgeteer.context.fill import by_score
from budgeteer.context.protocol import Reducer
from budgeteer.core.errors import InvalidInput, MissingExtra
from budgeteer.core.plan import F64

try:
    import bm25s
except ImportError as error:
    raise MissingExtra("bm25s", "context") from error


def bm25(k1: float = 1.5, b: float = 0.75) -> Reducer:
    """Keep the pieces of the highest BM25 for the question.

    Formula: sum over the question's words w of idf(w) f (k1 + 1) / (f + k1 (1 - b + b length / mean length)) up to the
    constant factor k1 + 1, f = how often w stands in the piece, idf(w) = ln(1 + (n - n_w + 0.5) / (n_w + 0.5)) with n_w
    of the n pieces having w. English stop words do not count.
    Helps when the question names what the evidence names; does not for a second hop, whose words stand in the first
    one.

    Args:
        k1: how much a word counts that stands there often, above 0.
        b: how much long pieces are marked down, 0 to 1.

    >>> from budgeteer.context.protocol import counter
    >>> talk = [{"role": "user", "content": text} for text in ("The cat sat.", "The dog ran.", "Where is the cat?")]
    >>> [message["content"] for message in bm25()(talk, 18, counter(lambda text: len(text.split())))]
    ['The cat sat.', 'Where is the cat?']
    """
    if not (k1 > 0 and 0 <= b <= 1):
        raise InvalidInput(f"bm25:k1={k1},b={b}; give k1 above 0 and b from 0 to 1")
    return by_score(lambda question, texts: scores(question, texts, k1, b))


def scores(question: str, texts: list[str], k1: float = 1.5, b: float = 0.75) -> F64:
    """BM25 of each text for a question, [n]; 0 for all where no word is left of one of them."""
    words = bm25s.tokenize(texts, stopwords="en", return_ids=False, show_progress=False)
    asked = bm25s.tokenize([question], stopwords="en", return_ids=False, show_progress=False)[0]
    if not asked or not any(words):
        return np.zeros(len(texts))
    index = bm25s.BM25(k1=k1, b=b, method="lucene")
    index.index(words, show_progress=False)
    return np.asarray(index.get_scores(asked), np.float64)
