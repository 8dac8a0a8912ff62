"""Optimal design: ask the questions that tell most about an ability, per token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from budgeteer.allocate.kit.solve import Found, lift, require_countable
from budgeteer.core.allocator import Allocator
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, Items, Outcomes, Plan

__all__ = ["Bank", "optimal_design"]


@dataclass(frozen=True, slots=True)
class Bank:
    """Questions with their calibrated two-parameter logistic model ``P(right) = sigmoid(slope . ability - intercept)``.

    Attributes:
        keys: N distinct names.
        slope: [N, d] discrimination along each of the d abilities.
        intercept: [N] difficulty.
    """

    keys: tuple[str, ...]
    slope: F64
    intercept: F64

    def __post_init__(self) -> None:
        if len(set(self.keys)) != len(self.keys):
            raise InvalidInput("Bank.keys repeat; give each question one distinct key")
        shapes = np.ndim(self.slope) == 2 and len(self.slope) == len(self.keys)
        if not shapes or np.shape(self.intercept) != (len(self.keys),):
            raise InvalidInput(
                f"Bank of {len(self.keys)} keys has slope {np.shape(self.slope)} and intercept"
                f" {np.shape(self.intercept)}; give [N, d] and [N]"
            )
        if not (np.all(np.isfinite(self.slope)) and np.all(np.isfinite(self.intercept))):
            raise InvalidInput("Bank has values that are not finite; drop those questions")

    def rows(self, keys: Sequence[str]) -> I64:
        """Positions of these keys."""
        at = {key: i for i, key in enumerate(self.keys)}
        for key in keys:
            if key not in at:
                raise InvalidInput(f"the bank has no question {key!r}; calibrate it first or drop the item")
        return np.array([at[key] for key in keys], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Belief:
    """Normal posterior of the ability: its mode, its precision there, and the answers so far.

    Attributes:
        mean: [d].
        precision: [d, d].
        asked: keys, one an answer.
        right: [answers] reward in [0, 1].
    """

    mean: F64
    precision: F64
    asked: tuple[str, ...]
    right: F64


def optimal_design(
    bank: Bank, targets: F64 | None = None, discount: float = 1.0, prior: F64 | None = None
) -> Allocator:
    """One unit each for the questions that lower the predictions' variance most per token, chosen one after another.

    With posterior covariance V, question j removes ``gain_j = sum_x w_j (x . V a_j)^2 / (1 + w_j a_j . V a_j)`` of
    the summed variance ``sum_x x . V x`` of the targets x (Sherman-Morrison). The largest ``gain_j /
    cost_j^discount`` that fits is taken, V is updated as if it had been asked (answers do not change it at a given
    ability), and so on until nothing fits. ``w_j`` is the Fisher information averaged over the posterior, ``k p (1 -
    p)`` with ``p = sigmoid(k eta)``, ``k = (1 + pi a.Va / 8)^-1/2``: at an early, wrong estimate p (1 - p) itself
    would mislead. ``observe`` finds the posterior mode by Newton steps over all answers so far. A question is asked
    once. Greedy, without a certificate: ``Plan.value`` and ``gap`` are NaN.

    When it helps: few answers must predict scores on many other questions, and a bank was calibrated on other models.
    When not: the model does not hold, or the token price of a question is what makes it informative. With
    ``discount`` = 1 cheap questions are taken even when they tell little; 0 counts questions instead of tokens.

    ``budgeteer lab ability`` fits a bank to the answers of other models and calls this.

    Paper: "Cost-Efficient Estimation of General Abilities Across Benchmarks", arXiv 2604.01418. The paper's own text of
    the formulas was not seen: these are the standard ones of optimal design for its model.

    Args:
        bank: the questions; items must be in it.
        targets: [T, d] directions whose variance counts; None = the d abilities themselves (A-optimality).
        discount: exponent of the cost, >= 0.
        prior: [d, d] covariance of the ability before any answer; None = identity.

    >>> bank = Bank(("blunt", "sharp", "dear"), np.array([[0.5], [2.0], [2.0]]), np.zeros(3))
    >>> items = Items(bank.keys, cost=np.array([10.0, 10.0, 40.0]))
    >>> method = optimal_design(bank)
    >>> method.allocate(20, items, method.init(items), rng=np.random.default_rng(0)).units
    array([1, 1, 0])
    """
    d = bank.slope.shape[1]
    cover = np.eye(d) if prior is None else np.asarray(prior, dtype=np.float64)
    aims = np.eye(d) if targets is None else np.asarray(targets, dtype=np.float64)
    if (
        cover.shape != (d, d)
        or not np.all(np.isfinite(cover))
        or not np.all(np.linalg.eigvalsh((cover + cover.T) / 2) > 0)
    ):
        raise InvalidInput(f"optimal_design's prior must be a positive definite [{d}, {d}] covariance")
    if not np.all(np.isfinite(aims)):
        raise InvalidInput("optimal_design's targets have values that are not finite")
    if aims.ndim != 2 or aims.shape[1] != d or not 0 <= discount < np.inf:
        raise InvalidInput(f"optimal_design(targets of shape {aims.shape}, discount={discount}); need [T, {d}], >= 0")
    start = inverse(cover)
    scatter = aims.T @ aims

    def allocate(budget: int, items: Items, state: Belief, *, rng: np.random.Generator) -> Plan:
        done = set(state.asked)

        def rule(budget: int, items: Items, rng: np.random.Generator) -> Found:
            require_countable(budget, items.cost)
            rows = bank.rows(items.keys)
            slope, mean = bank.slope[rows], bank.slope[rows] @ state.mean - bank.intercept[rows]
            price, v = items.cost**discount, inverse(state.precision)
            units, left = np.zeros(len(items), np.int64), float(budget)
            open_ = np.array([key not in done for key in items.keys])
            while (open_ & (items.cost <= left)).any():
                worth = np.where(open_ & (items.cost <= left), gains(slope, mean, v, scatter) / price, -1.0)
                j = int(np.argmax(worth))
                units[j], open_[j], left = 1, False, left - float(items.cost[j])
                va = v @ slope[j]
                w = float(information(slope[j : j + 1], mean[j : j + 1], v)[0])
                v = v - np.outer(va, va) * (w / (1 + w * float(slope[j] @ va)))
            return Found(units)

        return lift(rule).allocate(budget, items, (), rng=rng)

    def observe(state: Belief, outcomes: Outcomes) -> Belief:
        if not np.all((outcomes.reward >= 0) & (outcomes.reward <= 1)):
            raise InvalidInput("optimal_design got a reward outside [0, 1]; answers are right (1) or wrong (0)")
        asked, right = state.asked + outcomes.keys, np.append(state.right, outcomes.reward)
        rows = bank.rows(asked)
        return Belief(*mode(bank.slope[rows], bank.intercept[rows], right, start), asked, right)

    return Allocator(lambda items: Belief(np.zeros(d), start, (), np.zeros(0)), allocate, observe)


def inverse(matrix: F64) -> F64:
    """Inverse [d, d] of a positive definite matrix."""
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def information(slope: F64, mean: F64, v: F64) -> F64:
    """Fisher information [n] of logits ``mean`` [n], averaged over their normal posterior of covariance v."""
    shrink = 1 / np.sqrt(1 + np.pi / 8 * np.einsum("ni,ij,nj->n", slope, v, slope))
    p = 1 / (1 + np.exp(-shrink * mean))
    return np.asarray(shrink * p * (1 - p), dtype=np.float64)


def gains(slope: F64, mean: F64, v: F64, scatter: F64) -> F64:
    """Variance [n] that each question removes from the targets; scatter [d, d] is the sum of x x^T over them."""
    w, va = information(slope, mean, v), slope @ v
    removed = np.einsum("ni,ij,nj->n", va, scatter, va)
    return np.asarray(w * removed / (1 + w * np.einsum("ni,ni->n", va, slope)), dtype=np.float64)


def mode(slope: F64, intercept: F64, right: F64, start: F64) -> tuple[F64, F64]:
    """Posterior mode [d] and precision [d, d] there, from all answers, by damped Newton steps from 0."""

    def loss(theta: F64) -> float:
        eta = slope @ theta - intercept
        return float(np.sum(np.logaddexp(0, eta) - right * eta) + theta @ start @ theta / 2)

    theta = np.zeros(len(start))
    for _ in range(50):
        p = 1 / (1 + np.exp(-(slope @ theta - intercept)))
        precision = start + slope.T @ (slope * (p * (1 - p))[:, None])
        move = np.linalg.solve(precision, slope.T @ (right - p) - start @ theta)
        size = 1.0
        while loss(theta + size * move) > loss(theta) and size > 1e-6:
            size /= 2  # far from the mode a whole step can overshoot
        theta = theta + size * move
        if np.max(np.abs(move)) < 1e-9:
            break
    p = 1 / (1 + np.exp(-(slope @ theta - intercept)))
    return theta, start + slope.T @ (slope * (p * (1 - p))[:, None])
