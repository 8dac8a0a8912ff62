"""What an answer costs: accuracy against tokens, in the forms that papers report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64


class Efficiency(NamedTuple):
    """E3 with what it is made of, since a cheap and wrong model can score well: never show it alone.

    Attributes:
        e3: A^2 / T.
        accuracy: A, mean score in percent.
        tokens: T, mean tokens a question, planner and side calls included.
    """

    e3: float
    accuracy: float
    tokens: float


def efficiency(scores: ArrayLike, tokens: ArrayLike) -> Efficiency:
    """E3 = A^2 / T of "Plan and Budget", arXiv 2505.16122; scores [n] in [0, 1], tokens [n].

    One of two right is 50 %; 50^2 / 125 = 20:

    >>> efficiency([1, 0], [100, 150])
    Efficiency(e3=20.0, accuracy=50.0, tokens=125.0)
    """
    score, spent = _pair(scores, tokens)
    accuracy, mean = 100 * float(score.mean()), float(spent.mean())
    if mean == 0:
        raise InvalidInput("E3 of no tokens at all; it is accuracy by tokens")
    return Efficiency(accuracy**2 / mean, accuracy, mean)


def csr(lengths: ArrayLike, k: float) -> float:
    """Cap saturation rate CSR@k: share of the lengths that are >= k (BenchOverflow).

    >>> csr([10, 99, 100, 100], 100)
    0.5
    """
    values = _column("lengths", lengths)
    return float(np.mean(values >= k))


def ecdf(lengths: ArrayLike) -> tuple[F64, F64]:
    """Empirical distribution: the distinct lengths x in order, and the share that is <= x.

    >>> x, share = ecdf([30, 10, 10, 20])
    >>> x.tolist(), share.tolist()
    ([10.0, 20.0, 30.0], [0.5, 0.75, 1.0])
    """
    x, count = np.unique(_column("lengths", lengths), return_counts=True)
    return x, np.cumsum(count) / count.sum()


def accuracy_per_token(scores: ArrayLike, tokens: ArrayLike) -> float:
    """Right answers by tokens, over all questions together.

    >>> accuracy_per_token([1, 0, 1], [100, 300, 100])
    0.004
    """
    score, spent = _pair(scores, tokens)
    if spent.sum() == 0:
        raise InvalidInput("accuracy by no tokens at all")
    return float(score.sum() / spent.sum())


def wasted(tokens: ArrayLike, answered: Sequence[bool]) -> float:
    """Share of the tokens that went into questions without an answer.

    >>> wasted([100, 300], [True, False])
    0.75
    """
    spent, have = _pair(tokens, answered)
    total = float(spent.sum())
    return float(spent[have == 0].sum()) / total if total else 0.0


def _column(name: str, values: ArrayLike) -> F64:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or not column.size or not np.all(np.isfinite(column)):
        raise InvalidInput(f"{name} of shape {column.shape}; give one finite number a question, at least one")
    return column


def _pair(first: ArrayLike, second: ArrayLike) -> tuple[F64, F64]:
    values, tokens = _column("scores", first), _column("tokens", second)
    if values.shape != tokens.shape:
        raise InvalidInput(f"{values.size} values and {tokens.size}; give one of each a question")
    return values, tokens
