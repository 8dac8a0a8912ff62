"""What several rewards share: statistics within a prompt's group, bands of difficulty, the penalty near a cap."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.plan import F64, I64, right
from budgeteer.rl.reward.protocol import Columns

EASY, MEDIUM, HARD = range(3)


def weights(*given: float) -> bool:
    """Whether all of these may be weights: numbers from 0 to a million, beyond which nothing else would count.

    >>> weights(0, 2.5), weights(1, float("nan")), weights(1e7)
    (True, False, False)
    """
    return all(0 <= weight <= 1e6 for weight in given)


def numbered(group: I64) -> tuple[I64, int]:
    """The groups [n] as numbers from 0 on, none left out, and how many there are."""
    names, index = np.unique(group, return_inverse=True)
    return index.reshape(-1).astype(np.int64), len(names)


def group_mean(values: NDArray[Any], group: I64, where: NDArray[np.bool_] | None = None) -> F64:
    """[n] mean of ``values`` over each row's group, or over those of its rows where ``where`` holds; 0 for none.

    >>> group_mean(np.array([1.0, 3, 5]), np.array([7, 7, 2])).tolist()
    [2.0, 2.0, 5.0]
    """
    index, groups = numbered(group)
    kept = np.ones(len(values), np.bool_) if where is None else where
    count = np.bincount(index[kept], minlength=groups)
    total = np.bincount(index[kept], np.asarray(values, np.float64)[kept], minlength=groups)
    return np.asarray((total / np.maximum(count, 1))[index], np.float64)


def group_sum(values: F64, group: I64) -> F64:
    """[n] sum of ``values`` over each row's group."""
    index, groups = numbered(group)
    return np.asarray(np.bincount(index, values, minlength=groups)[index], np.float64)


def between(values: I64, group: I64) -> F64:
    """[n] 1/2 for the least of its group, -1/2 for the largest, a line between them; 0 where all are equal.

    >>> between(np.array([10, 20, 30, 7]), np.array([4, 4, 4, 1])).tolist()
    [0.5, 0.0, -0.5, 0.0]
    """
    index, groups = numbered(group)
    low, high = np.full(groups, np.inf), np.full(groups, -np.inf)
    np.minimum.at(low, index, values)
    np.maximum.at(high, index, values)
    width = (high - low)[index]
    return np.asarray(np.where(width > 0, 0.5 - (values - low[index]) / np.where(width > 0, width, 1), 0.0), np.float64)


def share_of_cap(tokens: NDArray[Any], rows: Columns) -> F64:
    """[n] tokens as a share of each row's cap."""
    return np.asarray(tokens / np.maximum(rows.max_tokens, 1), np.float64)


def pass_rate(rows: Columns) -> F64:
    """[n] share of right rows in each row's group."""
    return group_mean(right(rows.correct) * 1.0, rows.group)


def band(rate: F64, easy: float = 2 / 3, medium: float = 1 / 3) -> I64:
    """[n] EASY from a pass rate of ``easy`` on, MEDIUM from ``medium`` on, else HARD; rounding does not count.

    >>> band(np.array([2 / 3, 0.5, 1 / 3, 0.3])).tolist()
    [0, 1, 1, 2]
    """
    return np.where(rate >= easy - 1e-9, EASY, np.where(rate >= medium - 1e-9, MEDIUM, HARD))


def near_cap(rows: Columns, share: float) -> F64:
    """[n] DAPO's soft overlong punishment: 0 before the last ``share`` of a row's cap, then down to -1 at the cap."""
    buffer = share * np.maximum(rows.max_tokens, 1)
    return np.clip((rows.max_tokens - buffer - rows.length) / buffer, -1.0, 0.0)


def sigmoid(x: F64) -> F64:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(x / 2)), np.float64)


def mean_where(values: NDArray[np.floating], where: NDArray[np.bool_]) -> F64:
    """[n] mean of a row's numbers [n, t] at the places [n, t] where ``where`` holds; 0 for a row without any."""
    total = np.where(where, values, 0.0).sum(axis=1, dtype=np.float64)
    return np.asarray(total / np.maximum(where.sum(axis=1), 1), np.float64)
