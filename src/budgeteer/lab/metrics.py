"""What an answer costs: accuracy against tokens, in the forms that papers report."""

from __future__ import annotations

import math
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


def pass_at_k(n: int, right: int, k: int) -> float:
    """Chance that k of n samples, drawn without replacement, hold a right one: ``1 - C(n - c, k) / C(n, k)``.

    Unbiased for the chance of k fresh samples (arXiv 2107.03374); ``1 - (1 - c / n)^k`` is not.
    Of 4 samples with 1 right, 3 of the 6 pairs hold it:

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    if not (0 <= right <= n and 1 <= k <= n):
        raise InvalidInput(f"pass@{k} of {n} samples, {right} right; 0 <= right <= n and 1 <= k <= n")
    return 1 - math.comb(n - right, k) / math.comb(n, k)


def area(tokens: ArrayLike, accuracy: ArrayLike, low: float, high: float) -> float:
    """Mean accuracy of a frontier over budgets from ``low`` to ``high``, uniform in log tokens.

    A budget buys the best point that costs no more; below the cheapest point, 0. So more points never hurt.

    Args:
        tokens, accuracy: [n] mean tokens and accuracy of each point, in any order.
        low, high: 0 < low < high.

    From 100 to 200 tokens 0.4, from 200 to 400 the same, as the point at 300 is worse: the second doubling has 0.4 up
    to 300 and beyond. From 400 to 800, 0.8. Mean of 0.4, 0.4, 0.8:

    >>> round(area([100, 300, 400], [0.4, 0.3, 0.8], 100, 800), 6)
    0.533333
    """
    spent, right = _pair(tokens, accuracy)
    if not 0 < low < high:
        raise InvalidInput(f"area from {low} to {high} tokens; give 0 < low < high")
    edges = np.unique(np.clip(np.concatenate([[low, high], spent]), low, high))
    best = [max((a for t, a in zip(spent, right, strict=True) if t <= edge), default=0.0) for edge in edges[:-1]]
    return float(np.dot(best, np.diff(np.log(edges))) / math.log(high / low))


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
