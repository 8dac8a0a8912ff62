"""A bank of questions from the answers of other models: item parameters by penalised marginal likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64

GENERAL, SPECIFIC = 21, 11
"""Points of the quadrature over a general and over a specific ability."""
SLOPE, SPREAD = 1.0, 3.0
"""Prior of a slope: normal around 1 (general) or 0 (specific) with this deviation; and deviation of an intercept's."""


class Calibrated(NamedTuple):
    """Item parameters of ``P(right) = sigmoid(slope . ability - intercept)``, abilities independent standard normal.

    Attributes:
        slope: [n, 1] or, with groups, [n, 1 + groups]: the general ability first.
        intercept: [n].
        loss: penalised negative log-likelihood after each round; it never rises.
        abilities: [m, 1 + groups] expected abilities of the models that were calibrated on.
    """

    slope: F64
    intercept: F64
    loss: tuple[float, ...]
    abilities: F64


def calibrate(right: F64, groups: Sequence[str] | None = None, *, rounds: int = 200, near: float = 1e-6) -> Calibrated:
    """Fit the item parameters of n questions to the answers of m models, by expectation and maximisation.

    The model is the two-parameter logistic one with a general ability and, with groups, one specific ability a group
    (a bifactor model): a question loads on the general ability and on that of its own group. Abilities are integrated
    out on a grid; given the general ability groups are independent, so the work grows with the number of groups, not
    with its power. Slopes have a normal prior around 1 (general) and 0 (specific), with deviation 1, intercepts one
    around 0 with deviation 3: a question that all models answer has finite parameters.

    Args:
        right: [m, n] 1 for right, 0 for wrong, something between for a partial credit, NaN for a question not asked.
        groups: [n] names; None = one general ability alone.
        rounds: most rounds.
        near: relative gain of a round at which it stops.

    Raises:
        InvalidInput: fewer than two models, values outside [0, 1], or a question without an answer.

    >>> answers = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]], dtype=float)
    >>> fit = calibrate(answers)
    >>> fit.intercept.argsort().tolist(), fit.abilities[:, 0].argsort().tolist()  # easiest first; the weakest first
    ([0, 1, 2], [3, 1, 0, 2])
    """
    given = np.asarray(right, dtype=np.float64)
    if given.ndim != 2 or given.shape[0] < 2:
        raise InvalidInput(f"calibration needs answers [models, questions] of at least 2 models, got {given.shape}")
    seen = ~np.isnan(given)
    if not np.all((given[seen] >= 0) & (given[seen] <= 1)):
        raise InvalidInput("calibration needs answers in [0, 1]: 1 right, 0 wrong, NaN not asked")
    if not seen.any(0).all():
        raise InvalidInput(f"{int((~seen.any(0)).sum())} questions have no answer of any model; leave them out")
    names = list(dict.fromkeys(groups or []))
    if groups is not None and len(groups) != given.shape[1]:
        raise InvalidInput(f"{len(groups)} groups for {given.shape[1]} questions; give one a question")
    member = np.array([names.index(name) for name in groups or []] or [0] * given.shape[1], dtype=np.int64)
    grid = _Grid(bool(names))
    y, asked = np.where(seen, given, 0.0), seen.astype(np.float64)
    # general slope, specific slope, intercept; a specific slope of 0 would stay there, since its sign is free
    beta = np.tile([SLOPE, SLOPE / 2 if names else 0.0, 0.0], (given.shape[1], 1))
    losses: list[float] = []
    for _ in range(rounds):
        weight, likelihood = _expect(y, asked, beta, member, max(1, len(names)), grid)
        losses.append(_penalty(beta) - likelihood)
        if len(losses) > 1 and losses[-2] - losses[-1] <= near * abs(losses[-1]):
            break
        for k, posterior in enumerate(weight):
            own = member == k
            beta[own] = _maximise(beta[own], y[:, own].T @ posterior, asked[:, own].T @ posterior, grid)
    slope = np.zeros((given.shape[1], 1 + len(names)))
    slope[:, 0] = beta[:, 0]
    if names:
        slope[np.arange(len(slope)), 1 + member] = beta[:, 1]
    abilities = [weight[0] @ grid.points[:, 0], *([w @ grid.points[:, 1] for w in weight] if names else [])]
    return Calibrated(slope, beta[:, 2].copy(), tuple(losses), np.stack(abilities, 1))


class _Grid:
    """Points [q s, 2] of a general and a specific ability, the general one slowest, and their weights."""

    def __init__(self, specific: bool) -> None:
        (a, u), (b, v) = _hermite(GENERAL), _hermite(SPECIFIC) if specific else (np.zeros(1), np.ones(1))
        self.general, self.specific = len(a), len(b)
        self.points: F64 = np.stack([np.repeat(a, len(b)), np.tile(b, len(a))], 1)
        self.design: F64 = np.column_stack([self.points, -np.ones(len(self.points))])
        self.free: I64 = np.array([0, 1, 2] if specific else [0, 2])  # parameters that are fitted
        self.log_general: F64 = np.log(u)
        self.log_specific: F64 = np.log(v)


def _hermite(n: int) -> tuple[F64, F64]:
    """Points and weights of the quadrature under a standard normal density."""
    points, weights = np.polynomial.hermite_e.hermegauss(n)
    return points, weights / weights.sum()


def _expect(y: F64, asked: F64, beta: F64, member: I64, groups: int, grid: _Grid) -> tuple[list[F64], float]:
    """Each group's posterior over the grid [m, q s] for every model, and the log-likelihood."""
    eta = beta @ grid.design.T  # [n, q s]
    log_right, log_wrong = -np.logaddexp(0, -eta), -np.logaddexp(0, eta)
    shape = (len(y), grid.general, grid.specific)
    joint = []
    for k in range(groups):
        own = member == k
        inside = y[:, own] @ log_right[own] + (asked - y)[:, own] @ log_wrong[own]
        joint.append(inside.reshape(shape) + grid.log_specific)
    each = [np.logaddexp.reduce(part, axis=2) for part in joint]  # [m, q], specific ability integrated out
    total = grid.log_general + sum(each)
    whole = np.logaddexp.reduce(total, axis=1)
    posterior = total - whole[:, None]
    weights = [
        np.exp(part - own[:, :, None] + posterior[:, :, None]).reshape(len(y), -1)
        for part, own in zip(joint, each, strict=True)
    ]
    return weights, float(whole.sum())


def _maximise(beta: F64, right: F64, count: F64, grid: _Grid, steps: int = 2) -> F64:
    """Newton steps for all questions [n, 3] at once, damped so that no question's objective falls.

    Args:
        right, count: [n, q s] expected right answers and expected answers at every point.
    """
    x, free = grid.design[:, grid.free], grid.free
    products = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    centre, scale = np.array([SLOPE, 0.0, 0.0])[free], np.array([1.0, 1.0, 1 / SPREAD**2])[free]

    def gain(b: F64) -> F64:
        eta = b @ x.T
        fit = (right * eta - count * np.logaddexp(0, eta)).sum(1)
        return np.asarray(fit - ((b - centre) ** 2 * scale).sum(1) / 2)

    b = beta[:, free]
    for _ in range(steps):
        p = 1 / (1 + np.exp(-(b @ x.T)))
        slope = (right - count * p) @ x - (b - centre) * scale
        curve = ((count * p * (1 - p)) @ products).reshape(-1, len(free), len(free)) + np.diag(scale)
        move = np.linalg.solve(curve, slope[:, :, None])[:, :, 0]
        size, before = np.ones(len(b)), gain(b)
        for _ in range(20):
            worse = gain(b + size[:, None] * move) < before - 1e-12
            if not worse.any():
                break
            size[worse] /= 2
        b = b + size[:, None] * move
        if np.abs(move).max(initial=0.0) < 1e-8:
            break
    moved = beta.copy()
    moved[:, free] = b
    return moved


def _penalty(beta: F64) -> float:
    """Negative logarithm of the priors, without their constants."""
    return float(((beta[:, 0] - SLOPE) ** 2 + beta[:, 1] ** 2 + (beta[:, 2] / SPREAD) ** 2).sum() / 2)
