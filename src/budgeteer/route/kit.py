"""What routes share: ridge and logistic regression, rising step functions."""

from __future__ import annotations

import numpy as np

from budgeteer.core.plan import F64


def ridge(x: F64, y: F64, penalty: float | F64) -> F64:
    """Weights [d, m] that minimise the squared error of x w [n, m] plus ``penalty`` |w|^2; a penalty [d] is one of each
    row of w."""
    return np.asarray(np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y))


def logistic(x: F64, y: F64, penalty: float, weight: F64 | None = None, steps: int = 25) -> F64:
    """Weights [d] of the logistic regression of y, 0 to 1, by Newton's method; ``penalty`` / 2 |w|^2 is added.

    Args:
        x: [n, d].
        y: [n].
        penalty: above 0.
        weight: [n] of the rows; None = all 1.
        steps: at most.
    """
    weight = np.ones(len(y)) if weight is None else weight
    w = np.zeros(x.shape[1])
    for _ in range(steps):
        p = sigmoid(x @ w)
        gradient = x.T @ (weight * (p - y)) + penalty * w
        curvature = (x * (weight * p * (1 - p))[:, None]).T @ x + penalty * np.eye(x.shape[1])
        step = np.linalg.solve(curvature, gradient)
        w = w - step
        if np.abs(step).max() < 1e-8:
            break
    return w


def sigmoid(z: F64) -> F64:
    """1 / (1 + exp(-z)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * z)))


def rising(x: F64, y: F64) -> tuple[F64, F64]:
    """The rising step function nearest to the points, by pooling adjacent violators.

    Args:
        x, y: [n].

    Returns:
        The x at which its steps begin, and their heights.

    >>> begin, height = rising(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 0.5]))
    >>> begin.tolist(), height.tolist()
    ([1.0, 2.0], [0.0, 0.75])
    """
    begins, places = np.unique(x, return_inverse=True)
    counts = np.bincount(places).astype(np.float64)
    means = np.bincount(places, y) / counts
    blocks: list[list[float]] = []  # begin, height, rows
    for begin, mean, rows in zip(begins.tolist(), means.tolist(), counts.tolist(), strict=True):
        blocks.append([begin, mean, rows])
        while len(blocks) > 1 and blocks[-2][1] >= blocks[-1][1]:
            _, height, n = blocks.pop()
            before = blocks[-1]
            before[1] = (before[1] * before[2] + height * n) / (before[2] + n)
            before[2] += n
    return np.array([block[0] for block in blocks]), np.array([block[1] for block in blocks])


def height(steps: tuple[F64, F64], x: F64) -> F64:
    """The heights of a step function at x; before its first step that of the first."""
    begin, heights = steps
    return np.asarray(heights[np.maximum(np.searchsorted(begin, x, side="right") - 1, 0)])
