"""A search over pairs (or more groups) of options by a Gaussian process: CoT-X's way to leave most pairs untried."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.joint import Array, Assignment
from budgeteer.core.plan import F64, I64, whole
from budgeteer.joint.kit import searched

_MANY = 4096
"""Choices beyond which candidates are drawn instead of listed."""


def gaussian_process(
    loss: Callable[[Array], tuple[float, Array]],
    cost: F64,
    budget: float,
    start: Array,
    *,
    rng: np.random.Generator,
    trials: int = 12,
    first: int = 6,
    noise: float = 0.1,
) -> Assignment:
    """Evaluate ``first`` choices that share no option where possible, then the one of largest expected improvement.

    Losses are taken as draws of a Gaussian process over choices, with the kernel ``k(x, x') = (share of groups in
    which they agree + 1[x = x']) / 2``: what an option does everywhere, and what a choice does beyond it. After
    standardising, the improvement expected of a choice with posterior mean m and deviation s below the best loss b is
    ``(b - m) Phi(z) + s phi(z)``, ``z = (b - m) / s``. Groups are, for example, the model that wrote a trace and the
    one that reads it. Gradients and ``start`` are not used.

    When it helps: an evaluation is dear, and options mostly do the same in all company. When not: only the company
    counts, as then nothing is learnt from one pair about another.

    Source: CoT-X: An Adaptive Framework for Cross-Model Chain-of-Thought Transfer and Optimization (arXiv 2511.05747).

    Args:
        loss, cost, budget, start, rng: see :class:`budgeteer.core.joint.Joint`.
        trials: evaluations in all, >= 1.
        first: of them before the process is used, >= 1.
        noise: standard deviation of an evaluation, as a share of that of the losses, > 0.

    Raises:
        InvalidInput: costs, logits, a budget or a loss that cannot be used.

    >>> table = np.array([[0.9, 0.6, 0.8], [0.5, 0.2, 0.4], [0.8, 0.5, 0.7]])  # source, target -> wrong answers
    >>> def wrong(y):
    ...     return float(y[0] @ table @ y[1]), np.zeros((2, 3))
    >>> best = gaussian_process(wrong, np.ones((2, 3)), 2.0, np.zeros((2, 3)), rng=np.random.default_rng(0), trials=6)
    >>> best.choice.tolist(), best.calls
    ([1, 1], 6)
    """
    table = searched("gaussian_process", cost, budget, start)
    if whole("trials", trials) < 1 or whole("first", first) < 1 or not 0 < noise < math.inf:
        raise InvalidInput(
            f"gaussian_process(trials={trials}, first={first}, noise={noise}); give 1 or more, noise > 0"
        )
    k = table.shape[1]
    pool = _affordable(table, budget, rng)
    seen: list[int] = []
    values: list[float] = []
    while len(seen) < min(trials, len(pool)):
        if len(seen) < first:
            shared = (pool[:, None, :] == pool[seen][None, :, :]).sum(axis=(1, 2)) if seen else np.zeros(len(pool))
            shared = shared + np.where(np.isin(np.arange(len(pool)), seen), np.inf, 0)
            at = int(rng.choice(np.flatnonzero(shared == shared.min())))
        else:
            gain = improvement(pool, np.array(seen), np.array(values), noise)
            gain[seen] = -np.inf
            at = int(rng.choice(np.flatnonzero(gain >= gain.max() - 1e-12)))
        value, _ = loss(np.eye(k)[pool[at]])
        if not np.isfinite(value):
            raise InvalidInput(f"the loss is {value} for the choice {pool[at].tolist()}; return a finite one")
        seen.append(at)
        values.append(float(value))
    best = int(np.argmin(values))
    choice = pool[seen[best]].astype(np.int64)
    return Assignment(choice, choice, values[best], len(seen))


def improvement(pool: I64, seen: I64, values: F64, noise: float) -> F64:
    """[m] expected improvement of every choice of a pool on the smallest loss that was seen, in standard deviations.

    Args:
        pool: [m, N] choices.
        seen: [t] positions in it that were evaluated.
        values: [t] their losses.
        noise: as in :func:`gaussian_process`.
    """
    spread = float(values.std()) or 1.0
    scaled = (values - values.mean()) / spread
    known = kernel(pool[seen], pool[seen]) + noise**2 * np.eye(len(seen))
    cross = kernel(pool, pool[seen])
    solved = np.linalg.solve(known, cross.T)
    mean = solved.T @ scaled
    deviation = np.sqrt(np.maximum(1.0 - (cross * solved.T).sum(axis=1), 1e-12))
    z = (scaled.min() - mean) / deviation
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    below = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in z.tolist()])
    return np.asarray(deviation * (z * below + density))


def kernel(a: I64, b: I64) -> F64:
    """[p, q] likeness of choices: half the share of groups that agree, and half for being the same.

    >>> kernel(np.array([[0, 1]]), np.array([[0, 1], [0, 2], [3, 3]])).tolist()
    [[1.0, 0.25, 0.0]]
    """
    share = (a[:, None, :] == b[None, :, :]).mean(axis=2)
    return np.asarray((share + (share == 1)) / 2)


def _affordable(cost: F64, budget: float, rng: np.random.Generator) -> I64:
    """[m, N] the choices within the budget; of large spaces, the cheapest one and others drawn at random."""
    n, k = cost.shape
    if k**n <= _MANY:
        every = np.array(list(itertools.product(range(k), repeat=n)), np.int64)
    else:
        every = np.unique(np.vstack([cost.argmin(axis=1), rng.integers(0, k, (_MANY, n))]), axis=0)
    return np.asarray(every[cost[np.arange(n), every].sum(axis=1) <= budget])
