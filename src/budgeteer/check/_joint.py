"""The rules of joint choices."""

from __future__ import annotations

import math

import numpy as np

from budgeteer.check._common import CheckFailed, refuses, same
from budgeteer.core.errors import InvalidInput
from budgeteer.core.joint import Assignment, Joint
from budgeteer.core.plan import F64

GROUPS, OPTIONS = 5, 3
ROUNDING = 1e-9
"""How far a sum of costs may be off, as a share of the budget."""
HELD = 1e-6
"""How far the expected cost of the last logits may be off, as a share of the budget."""


class Problem:
    """A loss with interactions of all pairs of options, which writes down what it was asked about."""

    def __init__(self, rng: np.random.Generator, *, whole: bool) -> None:
        size = GROUPS * OPTIONS
        self.cost: F64 = rng.integers(0, 9, (GROUPS, OPTIONS)).astype(np.float64)
        if not whole:
            self.cost = rng.uniform(0, 9, (GROUPS, OPTIONS))
        self.alone, pair = rng.normal(size=(GROUPS, OPTIONS)), rng.normal(size=(size, size))
        self.pair = (pair + pair.T) / 4
        least, most = self.cost.min(axis=1).sum(), self.cost.max(axis=1).sum()
        self.budget = float(least + 0.5 * (most - least))
        self.asked: list[F64] = []

    def loss(self, y: F64) -> tuple[float, F64]:
        """The value and the gradient of the loss at y."""
        self.asked.append(np.array(y))
        through = self.pair @ y.ravel()
        return float((y * self.alone).sum() + y.ravel() @ through / 2), self.alone + through.reshape(y.shape)


def check_joint(joint: Joint, *, seed: int = 0) -> None:
    """Run a joint method on small losses whose options interact; raise :class:`CheckFailed` at the first broken rule.

    Rules: choices are [N] options in range and within the budget; every y that the loss was asked about is one-hot and
    within the budget; ``calls`` counts them; ``loss`` is that of ``best``, the smallest that was seen; the expected
    cost of the last logits, if there are any, is the budget; the same seed gives the same result; the given costs and
    logits are not changed; bad input is refused with InvalidInput.

    Args:
        joint: the method to check.
        seed: of the losses and of what the method draws.
    """
    for turn, whole in enumerate((True, False)):
        problem = Problem(np.random.default_rng([seed, turn, 5]), whole=whole)
        start = -problem.alone
        given = problem.cost.copy(), start.copy()
        assignment = joint(problem.loss, problem.cost, problem.budget, start, rng=np.random.default_rng(seed))
        if not same(given, (problem.cost, start)):
            raise CheckFailed("the method changed costs or logits that it was given; copy before writing")
        _result(assignment, problem)
        if whole:
            again = joint(problem.loss, problem.cost, problem.budget, start, rng=np.random.default_rng(seed))
            if not same(assignment, again):
                raise CheckFailed("the same seed gave another result; draw from rng only and keep no memory")
    _refusals(joint, problem)


def _result(assignment: Assignment, problem: Problem) -> None:
    most = problem.budget * (1 + ROUNDING)
    for y in problem.asked:
        if y.shape != problem.cost.shape or not np.all((y == 0) | (y == 1)) or not np.all(y.sum(axis=1) == 1):
            raise CheckFailed(f"the loss was asked about {y.tolist()}; every row is one-hot")
        if float((y * problem.cost).sum()) > most:
            raise CheckFailed(
                f"the loss was asked about a choice of cost {(y * problem.cost).sum()}, over the budget"
                f" of {problem.budget}"
            )
    for name in ("choice", "best"):
        choice = np.asarray(getattr(assignment, name))
        if choice.shape != (GROUPS,) or choice.dtype.kind not in "iu" or not np.all((choice >= 0) & (choice < OPTIONS)):
            raise CheckFailed(
                f"{name} is {choice.tolist()}; give one option of 0 to {OPTIONS - 1} a group, as integers"
            )
        spent = float(problem.cost[np.arange(GROUPS), choice].sum())
        if spent > most:
            raise CheckFailed(f"{name} costs {spent}, over the budget of {problem.budget}")
    if assignment.calls != len(problem.asked):
        raise CheckFailed(f"calls is {assignment.calls}, and the loss was called {len(problem.asked)} times")
    seen = list(problem.asked)  # before the loss is asked here
    values = [problem.loss(y)[0] for y in seen]
    loss = problem.loss(np.eye(OPTIONS)[assignment.best])[0]
    if not math.isclose(assignment.loss, loss, rel_tol=1e-9, abs_tol=1e-12):
        raise CheckFailed(f"loss is {assignment.loss}, and best has a loss of {loss}")
    if values and assignment.loss > min(values) + 1e-9:
        raise CheckFailed(
            f"best has a loss of {assignment.loss}, and {min(values)} was seen; best is the smallest seen"
        )
    problem.asked.clear()
    if assignment.logits is not None:
        logits = np.asarray(assignment.logits, dtype=np.float64)
        if logits.shape != problem.cost.shape or not np.all(np.isfinite(logits)):
            raise CheckFailed(f"the logits have shape {logits.shape}; give finite ones of shape {problem.cost.shape}")
        p = np.exp(logits - logits.max(axis=1)[:, None])
        expected = float((p / p.sum(axis=1)[:, None] * problem.cost).sum())
        if not math.isclose(expected, problem.budget, rel_tol=HELD):
            raise CheckFailed(f"the expected cost of the last logits is {expected}, and the budget {problem.budget}")


def _refusals(joint: Joint, problem: Problem) -> None:
    rng, cost, start = np.random.default_rng(0), problem.cost, -problem.alone
    below = float(cost.min(axis=1).sum()) - 1
    broken = np.where(np.arange(OPTIONS) == 1, np.nan, cost)
    for rule, arguments in {
        "a budget below the cheapest choice is refused": (problem.loss, cost, below, start),
        "a budget of nan is refused": (problem.loss, cost, math.nan, start),
        "a cost of nan is refused": (problem.loss, broken, problem.budget, start),
        "a negative cost is refused": (problem.loss, cost - 10, problem.budget, start),
        "logits of another shape than the costs are refused": (problem.loss, cost, problem.budget, start[:, :-1]),
        "logits of nan are refused": (problem.loss, cost, problem.budget, start * np.nan),
        "a loss of nan is refused": (lambda y: (math.nan, start), cost, problem.budget, start),
    }.items():
        refuses(InvalidInput, rule, joint, *arguments, rng=rng)
