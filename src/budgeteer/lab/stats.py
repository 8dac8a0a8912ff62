"""Intervals over seeds: the mean, the paired difference, and whether one recipe is no worse than another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64


@dataclass(frozen=True, slots=True)
class Paired:
    """A mean over seeds with its two-sided t interval.

    Attributes:
        mean: mean of the n values, or of the n paired differences ``a - b``; their unit.
        low, high: interval limits in the same unit; NaN when n = 1, since one seed has no spread.
        n: number of seeds.
    """

    mean: float
    low: float
    high: float
    n: int


def mean_ci(x: Sequence[float] | F64, *, level: float = 0.95) -> Paired:
    """Mean and t interval ``mean ± t[(1 + level) / 2, n - 1] * s / sqrt(n)`` with ``s`` the n - 1 standard deviation.

    It assumes that the values are independent and roughly normal. With a handful of seeds the interval is wide, as
    it should be.

    Args:
        x: [n] one finite value a seed, n >= 1.
        level: coverage in (0, 1).

    Raises:
        InvalidInput: x is empty or not finite, or level is outside (0, 1).

    >>> m = mean_ci([1.0, 2.0, 3.0])
    >>> round(m.mean, 3), round(m.low, 3), round(m.high, 3), m.n
    (2.0, -0.484, 4.484, 3)
    """
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise InvalidInput(f"an interval over values of shape {values.shape}; give one value a seed, at least one")
    if not np.all(np.isfinite(values)):
        raise InvalidInput(f"an interval over {values.tolist()}; drop the seeds without a finite value, in pairs")
    if not 0 < level < 1:
        raise InvalidInput(f"an interval of level {level}; the level is a coverage such as 0.95, between 0 and 1")
    n, mean = values.size, float(values.mean())
    if n == 1:
        return Paired(mean, math.nan, math.nan, 1)
    half = t_quantile((1 + level) / 2, n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
    return Paired(mean, mean - half, mean + half, n)


def paired(a: Sequence[float] | F64, b: Sequence[float] | F64, *, level: float = 0.95) -> Paired:
    """Paired t interval of ``mean(a - b)``: each seed is its own control.

    Pairing removes what the two runs of a seed share (start weights, prompts, evaluation set), so it is narrower than
    comparing two means whenever the seeds' results are positively correlated. It does not help when they are not.

    Args:
        a, b: [n] one value a seed, in the same order of seeds.
        level: coverage in (0, 1).

    Raises:
        InvalidInput: the lengths differ, or :func:`mean_ci` refuses the differences.

    >>> paired([0.52, 0.61, 0.57], [0.50, 0.58, 0.56]).mean > 0
    True
    """
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape:
        raise InvalidInput(f"paired values of shapes {left.shape} and {right.shape}; run both on the same seeds")
    return mean_ci(left - right, level=level)


def wilson(right: int, n: int, *, level: float = 0.95) -> Paired:
    """A share right / n with Wilson's score interval, which also holds near 0 and 1.

    The limits solve ``|p - right / n| = z sqrt(p (1 - p) / n)`` for p (Wilson 1927).

    Args:
        right, n: counts, 0 <= right <= n, n >= 1.
        level: coverage in (0, 1).

    >>> w = wilson(8, 10)
    >>> round(w.low, 3), round(w.high, 3)
    (0.49, 0.943)
    """
    if not (0 <= right <= n and n >= 1 and 0 < level < 1):
        raise InvalidInput(f"a share of {right} of {n} at level {level}; give 0 <= right <= n and a level below 1")
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = (right + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(right * (n - right) / n + z * z / 4)
    low, high = 0.0 if right == 0 else middle - half, 1.0 if right == n else middle + half  # exact at the ends
    return Paired(right / n, low, high, n)


def paired_shares(a: Sequence[bool], b: Sequence[bool], *, level: float = 0.95) -> Paired:
    """The share of ``a`` that is right less that of ``b``, of the same samples; the interval holds near 0, too.

    Of n samples f are right in ``a`` alone and g in ``b`` alone. With ``p = (f + 1) / (n + 2)`` and
    ``q = (g + 1) / (n + 2)`` the limits are ``p - q -+ z sqrt((p + q - (p - q)^2) / (n + 2))``, within -1 and 1
    (Wald's, adjusted: Bonett and Price 2012); the mean is ``(f - g) / n``.

    Args:
        a, b: whether each sample is right, 1-d of one length of at least 1.
        level: coverage in (0, 1).

    >>> d = paired_shares([True] * 20, [True] * 20)
    >>> round(d.low, 3), d.mean, round(d.high, 3)
    (-0.126, 0.0, 0.126)
    """
    left, right = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if left.shape != right.shape or left.ndim != 1 or not len(left) or not 0 < level < 1:
        raise InvalidInput(
            f"paired samples of shapes {left.shape} and {right.shape} at level {level}; give as many of both, at least "
            "one, and a level below 1"
        )
    n, f, g = len(left), int(np.sum(left & ~right)), int(np.sum(right & ~left))
    p, q = (f + 1) / (n + 2), (g + 1) / (n + 2)
    half = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return Paired((f - g) / n, max(p - q - half, -1.0), min(p - q + half, 1.0), n)


def crossed_weights(questions: int, seeds: int, *, draws: int = 2000, seed: int = 0) -> tuple[F64, F64]:
    """Weights of bootstrap samples that draw questions and seeds, both with replacement and independently.

    The same weights serve everything measured on these questions and seeds, so that differences are paired. Resampling
    both crossed factors errs on the wide side (Owen 2007, the pigeonhole bootstrap). With one seed only questions vary.

    Returns:
        ([draws, questions], [draws, seeds]); every row sums to 1.
    """
    if questions < 1 or seeds < 1 or draws < 1:
        raise InvalidInput(f"{questions} questions, {seeds} seeds and {draws} draws; give at least one of each")
    rng = np.random.default_rng(seed)
    by_question = rng.multinomial(questions, np.full(questions, 1 / questions), size=draws) / questions
    return by_question, rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds


def crossed(values: F64, weights: tuple[F64, F64], *, level: float = 0.95) -> Paired:
    """The mean over questions and seeds with its bootstrap percentile interval.

    Args:
        values: [seeds, questions], such as 1 where the answer is right, or the difference of two such tables.
        weights: of :func:`crossed_weights` for as many questions and seeds.
        level: coverage in (0, 1).
    """
    by_question, by_seed = weights
    if values.shape != (by_seed.shape[1], by_question.shape[1]):
        raise InvalidInput(
            f"values of shape {values.shape} for {by_seed.shape[1]} seeds and {by_question.shape[1]} questions"
        )
    means = np.einsum("bk,kn,bn->b", by_seed, values, by_question, optimize=True)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Paired(float(values.mean()), float(low), float(high), values.shape[0])


def crossed_part(values: F64, part: F64, weights: tuple[F64, F64], *, level: float = 0.95) -> Paired | None:
    """The mean over those entries that are in a part, with its bootstrap percentile interval; None if none is.

    The part is drawn, too: a draw's mean is over the entries of the part that it drew, and draws without any are left
    out.

    Args:
        values: [seeds, questions].
        part: [seeds, questions], 1 where the entry is in the part, else 0.
        weights: as of :func:`crossed`.
        level: coverage in (0, 1).

    >>> found = crossed_part(np.eye(2), np.array([[1.0, 1.0], [0.0, 0.0]]), crossed_weights(2, 2))
    >>> found.mean, found.low, found.high
    (0.5, 0.0, 1.0)
    """
    if not part.any():
        return None
    by_question, by_seed = weights
    if values.shape != part.shape or part.shape != (by_seed.shape[1], by_question.shape[1]):
        raise InvalidInput(f"values of shape {values.shape} and a part of shape {part.shape} for other weights")
    top, bottom = (
        np.einsum("bk,kn,bn->b", by_seed, table, by_question, optimize=True) for table in (values * part, part)
    )
    low, high = np.quantile(top[bottom > 0] / bottom[bottom > 0], [(1 - level) / 2, (1 + level) / 2])
    return Paired(float((values * part).sum() / part.sum()), float(low), float(high), values.shape[0])


@lru_cache(maxsize=256)
def t_quantile(p: float, df: float) -> float:
    """Quantile of Student's t with ``df`` degrees of freedom at probability p in (0, 1), by bisection of the tail.

    >>> round(t_quantile(0.975, 10), 4)
    2.2281
    """
    if not (0 < p < 1 and df > 0):
        raise InvalidInput(f"t quantile at p={p}, df={df}; p is between 0 and 1 and df above 0")
    if p < 0.5:
        return -t_quantile(1 - p, df)
    low, high = 0.0, 1.0
    while _upper_tail(high, df) > 1 - p:
        low, high = high, 2 * high
    while True:
        middle = (low + high) / 2
        if middle in (low, high):  # neighbouring floats: no finer answer exists
            return middle
        low, high = (middle, high) if _upper_tail(middle, df) > 1 - p else (low, middle)


def _upper_tail(t: float, df: float) -> float:
    """P(T > t) for t >= 0: ``I_x(df / 2, 1 / 2) / 2`` with ``x = df / (df + t^2)``."""
    return _beta(df / (df + t * t), t * t / (df + t * t), df / 2, 0.5) / 2


def _beta(x: float, y: float, a: float, b: float) -> float:
    """Regularised incomplete beta I_x(a, b) with y = 1 - x given, so that neither loses digits near its end."""
    if x <= 0 or y <= 0:
        return float(x > 0)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side only
        return 1 - _beta(y, x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(y)) / a
    return front * _beta_fraction(x, a, b)


def _beta_fraction(x: float, a: float, b: float) -> float:
    """Continued fraction of the incomplete beta function by Lentz's method (Abramowitz and Stegun 26.5.8)."""
    tiny = 1e-300  # stands in for a zero denominator
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    value = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / ((1 + term * d) or tiny)
            c = (1 + term / c) or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value
