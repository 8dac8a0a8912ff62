"""Riemannian exact-budget search (RCO): one option a group, joint loss, the expected cost on budget at every step."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np

from budgeteer.allocate import menu_knapsack
from budgeteer.core.errors import InvalidInput
from budgeteer.core.joint import Array, Assignment
from budgeteer.core.plan import F64, I64, Items, Menu, whole

CELLS = 1 << 20
"""Cells of the budget, where costs are not whole numbers."""


def riemannian(
    loss: Callable[[Array], tuple[float, Array]],
    cost: F64,
    budget: float,
    start: Array,
    *,
    rng: np.random.Generator,
    steps: int = 200,
    samples: int = 4,
    rate: float = 0.1,
    temperature: tuple[float, float] = (1.0, 0.01),
) -> Assignment:
    """Minimise a loss of one-hot choices y [N, K] that does not split into groups, with ``sum cost[i, k_i] <= budget``.

    Logits a live on the manifold ``C(a) = sum_ik p_ik cost_ik = budget``, ``p_i = softmax(a_i)``, of normal
    ``n_ik = p_ik (cost_ik - E_i[cost])``. Each step, at a temperature tau that falls geometrically:

    1. For G Gumbel samples, in pairs u and 1 - u: hard choices by :func:`menu_knapsack` on ``(a + g) / tau``,
       so each fits the budget; the gradient at them goes straight through ``softmax((a + g) / tau)``.
       (A pair g and -g would be wrong: -g is not a Gumbel, and the choices would not follow p.)
    2. Tangent projection ``g - (<g, n> / <n, n>) n``, an Adam step, retraction ``a + t cost`` with the one t
       that restores ``C = budget`` (C rises with t: its slope is the summed variance of the costs), and transport
       of Adam's first moment to the new tangent space.

    At the end the knapsack rounds ``log softmax(a)``. The samples and the result never cost more than the budget:
    whole costs are exact, others are rounded up to a millionth of it.

    When it helps: options interact (bits or experts of different layers, components of one prompt) and a gradient
    through the choice exists. When not: the loss is a sum over groups, which one dynamic program solves exactly; or
    spending less can be better, since the expected cost is held at the budget during the search.

    Paper: RCO, arXiv 2605.00649 (the published result is ``choice``; remembering ``best`` is ours).

    Args:
        loss: ``y -> (loss, gradient [N, K])``; y is of the type of ``start``. With torch, call backward inside.
        cost: [N, K] finite costs >= 0 of the options.
        budget: strictly between the cheapest and the costliest assignment.
        start: [N, K] logits, such as minus the log of each option's own error; numpy array or torch tensor.
        rng: seeds the Gumbel samples; the same for both array types.
        steps, samples: loss is called ``steps * samples + 1`` times.
        rate: of Adam.
        temperature: tau at the first and at the last step.

    >>> cost, table = np.array([[0.0, 1.0, 2.0]] * 3), np.array([[4.0, 1.0, 0.0], [4.0, 3.9, 0.0], [4.0, 0.5, 0.0]])
    >>> rng = np.random.default_rng(0)
    >>> assignment = riemannian(lambda y: (float((y * table).sum()), table), cost, 4, -table, rng=rng)
    >>> assignment.choice, assignment.loss
    (array([1, 2, 1]), 1.5)
    """
    table = np.asarray(cost, dtype=np.float64)
    if not hasattr(start, "detach"):  # not a torch tensor
        start = np.asarray(start, dtype=np.float64)
    if table.ndim != 2 or tuple(start.shape) != table.shape or not np.all(np.isfinite(table) & (table >= 0)):
        raise InvalidInput(f"riemannian needs finite costs [N, K] >= 0 and logits of their shape; got {table.shape}")
    least, most = float(table.min(axis=1).sum()), float(table.max(axis=1).sum())
    if not least < budget < most:
        raise InvalidInput(f"a budget of {budget}; assignments cost {least} to {most}, and it must lie between them")
    positive = 0 < rate < math.inf and 0 < temperature[1] <= temperature[0] < math.inf
    if whole("steps", steps) < 1 or whole("samples", samples) < 1 or not positive:
        raise InvalidInput(f"riemannian(steps={steps}, samples={samples}, rate={rate}, temperature={temperature})")
    xp = np if isinstance(start, np.ndarray) else sys.modules["torch"]
    if not bool(xp.isfinite(start).all()):
        raise InvalidInput("riemannian's start has logits that are not finite; rule out an option by one far below 0")

    def like(values: F64) -> Array:
        return xp.asarray(values, dtype=start.dtype) if xp is np else start.new_tensor(values)

    prices = like(table)
    logits = retract(start, prices, budget)
    first, second = xp.zeros_like(logits), xp.zeros_like(logits)
    best, lowest, calls = np.zeros(len(table), np.int64), float("inf"), 0
    cell, capacity = cells(table, budget)
    eye = np.eye(table.shape[1])

    def tried(choice: I64) -> Array:
        nonlocal best, lowest, calls
        value, gradient = loss(like(eye[choice]))
        calls += 1
        if not np.isfinite(value):
            raise InvalidInput(f"riemannian's loss is {value} for the choice {choice.tolist()}; return a finite one")
        if not bool(xp.isfinite(gradient).all()):
            raise InvalidInput(f"riemannian's gradient is not finite for the choice {choice.tolist()}; check the loss")
        if value < lowest:
            best, lowest = choice, float(value)
        return gradient

    for step in range(steps):
        tau = temperature[0] * (temperature[1] / temperature[0]) ** (step / max(steps - 1, 1))
        noisy = [(logits + like(g)) / tau for g in gumbel_pairs(samples, table.shape, rng)]
        choices = round_choices(np.stack([_numpy(sample) for sample in noisy]), cell, capacity)
        gradient = xp.zeros_like(logits)
        for sample, choice in zip(noisy, choices, strict=True):
            soft, through = softmax(sample), tried(choice)
            gradient = gradient + soft * (through - xp.sum(soft * through, 1)[:, None]) / (tau * samples)
        gradient = project(gradient, normal(logits, prices))
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        scale = xp.sqrt(second / (1 - 0.999 ** (step + 1))) + 1e-8
        logits = retract(logits - rate * first / (1 - 0.9 ** (step + 1)) / scale, prices, budget)
        first = project(first, normal(logits, prices))
    (choice,) = round_choices(np.log(np.maximum(_numpy(softmax(logits)), 1e-300))[None], cell, capacity)
    tried(choice)
    return Assignment(choice, best, lowest, calls, logits)


def _numpy(x: Array) -> F64:
    return np.asarray(x if isinstance(x, np.ndarray) else x.detach().cpu().numpy(), dtype=np.float64)


def softmax(logits: Array) -> Array:
    """Row-wise softmax [N, K]."""
    xp = np if isinstance(logits, np.ndarray) else sys.modules["torch"]
    top = xp.exp(logits - xp.amax(logits, 1)[:, None])
    return top / xp.sum(top, 1)[:, None]


def expected_cost(logits: Array, cost: Array) -> float:
    """C: the summed cost when each group draws its option from its softmax."""
    return float((softmax(logits) * cost).sum())


def normal(logits: Array, cost: Array) -> Array:
    """Gradient [N, K] of the expected cost, the direction that leaves the manifold."""
    p = softmax(logits)
    return p * (cost - (p * cost).sum(1)[:, None])


def project(vector: Array, away: Array) -> Array:
    """The part of ``vector`` that is orthogonal to ``away``, over all groups together."""
    return vector - (vector * away).sum() / ((away * away).sum() + 1e-300) * away


def retract(logits: Array, cost: Array, budget: float) -> Array:
    """``logits + t * cost`` with the t for which the expected cost is the budget; Newton steps inside a bracket."""
    xp = np if isinstance(logits, np.ndarray) else sys.modules["torch"]
    close = float(xp.finfo(logits.dtype).eps) ** 0.6 * float(cost.sum() + 1.0)
    low, high, t, reach, last = -np.inf, np.inf, 0.0, 1.0 / float(abs(cost).max()), np.inf
    for _ in range(400):
        moved = logits + t * cost
        gap = expected_cost(moved, cost) - budget
        if abs(gap) <= close:
            break
        low, high = (low, t) if gap > 0 else (t, high)
        p = softmax(moved)
        slope = float((p * cost * (cost - (p * cost).sum(1)[:, None])).sum())
        newton = t - gap / slope if slope > 1e-200 else np.nan
        closed = np.isfinite(low) and np.isfinite(high)
        fast = abs(gap) < last / 2 or not closed
        if low < newton < high and fast and (closed or abs(newton - t) <= reach):
            t = newton
        else:  # saturated or slow: halve the bracket, or reach out while one side is open
            t = (low + high) / 2 if closed else (high - reach if gap > 0 else low + reach)
            reach *= 2
        last = abs(gap)
    return moved


def gumbel_pairs(samples: int, shape: tuple[int, ...], rng: np.random.Generator) -> F64:
    """Standard Gumbel noise [samples, ...], the second half from 1 - u where the first is from u."""
    u = np.clip(rng.random(((samples + 1) // 2, *shape)), 1e-12, 1 - 1e-12)
    return np.asarray(-np.log(-np.log(np.concatenate([u, 1 - u])[:samples])), dtype=np.float64)


def cells(cost: F64, budget: float) -> tuple[I64, int]:
    """Costs above each group's cheapest, in whole cells [N, K], and the budget's cells; sums of cells never mislead.

    Whole costs keep their unit, cut where they are above the budget; others are rounded up to CELLS of what is left
    of it, so what fits in cells fits in truth.
    """
    extra, left = cost - cost.min(axis=1, keepdims=True), budget - float(cost.min(axis=1).sum())
    if np.all(extra == np.floor(extra)):
        return np.minimum(extra, math.floor(left) + 1).astype(np.int64), math.floor(left)
    return np.ceil(np.minimum(extra * (CELLS / left), CELLS + 1)).astype(np.int64), CELLS


def round_choices(score: F64, cell: I64, capacity: int) -> I64:
    """Choices [G, N] of the largest summed score [G, N, K] within the capacity: a multiple-choice knapsack each.

    What a group may take instead of its best free option is a menu, for :func:`menu_knapsack`.
    """
    samples, groups, _ = score.shape
    solver, keys, rng = menu_knapsack(exact=True), tuple(map(str, range(groups))), np.random.default_rng(0)
    choice = np.zeros((samples, groups), np.int64)
    for g in range(samples):
        free = np.where(cell == 0, score[g], -np.inf).argmax(axis=1)
        gain = score[g] - score[g, np.arange(groups), free][:, None]
        group, option = np.nonzero((cell > 0) & (gain > 0))
        indptr = np.searchsorted(group, np.arange(groups + 1))
        menu = Menu(cell[group, option], gain[group, option], indptr)
        units = solver.allocate(capacity, Items(keys, menu=menu), (), rng=rng).units
        choice[g] = free
        changed = np.flatnonzero(units)
        choice[g, changed] = option[indptr[changed] + units[changed] - 1]
    return choice
