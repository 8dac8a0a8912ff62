"""RCO (arXiv 2605.00649): equal to the dynamic program where groups are separate, better than its proxy where not?

Groups with options of cost w_i (2, 3, ...), w_i in {1, 2, 3}; each option's own error falls with its cost; the budget
is half-way between cheapest and costliest. Interactions add y W y / 2 with normal W between options of different
groups. The proxy is what a dynamic program can see: the change of the loss when one group leaves the costliest
option, all others kept there. 200 steps of 4 samples. Small: 8 groups of 4 options, where the optimum is known by
brute force; large: 20 groups of 5. ``choice`` is the published result, ``best`` the best of the samples as well. The
evolutionary search mutates one or two groups of its best assignment and gets three calls for each of RCO's, whose
calls have a gradient.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal

import numpy as np

from budgeteer.core.plan import F64, I64
from budgeteer.joint import riemannian
from budgeteer.joint._riemannian import cells, expected_cost, gumbel_pairs, round_choices
from budgeteer.lab.evidence import BELOW_ZERO, Evidence, Region, declare, measured

SMALL, LARGE = (8, 4), (20, 5)
Loss = Callable[[F64], tuple[float, F64]]
Result = Literal["choice", "best"]

DECLARED = declare(
    "simulation",
    claims=(
        "choice against the dynamic program, separate, 8 groups",
        "best against the dynamic program, separate, 8 groups",
        "choice against the dynamic program, interacting, 8 groups",
        "choice against the dynamic program, interacting, 20 groups",
        "best against the dynamic program, interacting, 20 groups",
        "gap to the optimum, choice",
        "gap to the optimum, best",
        "best against evolution",
        "expected cost",
        "antithetic pairs",
    ),
    must_fail=("antithetic pairs, g and -g",),
)


def experiments() -> list[Evidence]:
    """All of RCO's experiments."""
    return [
        against_proxy(0.0, SMALL, "choice"),
        against_proxy(0.0, SMALL, "best"),
        against_proxy(0.5, SMALL, "choice"),
        against_proxy(0.5, LARGE, "choice"),
        against_proxy(0.5, LARGE, "best"),
        gap(0.5, "choice"),
        gap(0.5, "best"),
        against_evolution(0.5),
        on_budget(),
        antithetic(),
        antithetic(wrong=True),
    ]


def problem(seed: int, size: tuple[int, int], strength: float) -> tuple[Loss, F64, F64, int]:
    """Loss with gradient, costs [N, K], errors [N, K] of the options alone, budget."""
    rng = np.random.default_rng([seed, 51])
    n, k = size
    cost = rng.integers(1, 4, (n, 1)) * np.arange(2.0, 2.0 + k)
    error = -np.sort(-rng.gamma(1.0, 1.0, size), axis=1)
    pair = rng.normal(size=(n * k, n * k)) * strength / np.sqrt(n)
    pair = (pair + pair.T) / 2 * (1 - np.kron(np.eye(n), np.ones((k, k))))

    def loss(y: F64) -> tuple[float, F64]:
        field = (pair @ y.ravel()).reshape(size)
        return float((y * (error + field / 2)).sum()), error + field

    return loss, cost, error, int((cost.min(axis=1).sum() + cost.max(axis=1).sum()) / 2)


def proxy(loss: Loss, cost: F64, budget: int) -> I64:
    """The dynamic program's choice from changes of one group at a time."""
    n, k = cost.shape
    eye, full = np.eye(k), np.full(n, k - 1)
    table = np.zeros((n, k))
    for i, option in itertools.product(range(n), range(k)):
        changed = full.copy()
        changed[i] = option
        table[i, option] = loss(eye[changed])[0]
    (choice,) = round_choices(-table[None], *cells(cost, budget))
    return np.asarray(choice, dtype=np.int64)


def solved(seed: int, size: tuple[int, int], strength: float, result: Result) -> tuple[float, float, int]:
    """Loss of RCO, loss of the proxy's choice, calls of RCO; raises if a choice is over budget."""
    loss, cost, error, budget = problem(seed, size, strength)
    solution = riemannian(loss, cost, budget, -error, rng=np.random.default_rng([seed, 52]))
    ours, theirs, eye = getattr(solution, result), proxy(loss, cost, budget), np.eye(size[1])
    for choice in (ours, theirs):
        spent = float(cost[np.arange(size[0]), choice].sum())
        if spent > budget:
            raise AssertionError(f"choice costs {spent} of {budget}")
    return loss(eye[ours])[0], loss(eye[theirs])[0], solution.calls


def against_proxy(strength: float, size: tuple[int, int], result: Result, *, seeds: int = 12) -> Evidence:
    """Loss minus that of the dynamic program."""
    pairs = np.array([solved(seed, size, strength, result)[:2] for seed in range(seeds)])
    region: Region = (-1e-6, 1e-6) if strength == 0 else BELOW_ZERO
    where = "Where groups are separate" if strength == 0 else "Where groups interact"
    return measured(
        f"{result} against the dynamic program, {'separate' if strength == 0 else 'interacting'}, {size[0]} groups",
        pairs[:, 0] - pairs[:, 1],
        region,
        claim=f"{where} ({size[0]} of {size[1]} options), the loss of `{result}` "
        + ("equals that of the exact dynamic program" if strength == 0 else "is below that of the proxy's choice")
        + " (difference)",
        baseline="dynamic program" + " on proxies" * (strength > 0),
        budget="equal cost",
        details=[{"rco": float(pairs[:, 0].mean()), "dynamic program": float(pairs[:, 1].mean())}],
    )


def brute(loss: Loss, cost: F64, budget: int) -> float:
    """Smallest loss over all assignments within the budget."""
    n, k = cost.shape
    every = np.array(list(itertools.product(range(k), repeat=n)))
    every = every[cost[np.arange(n), every].sum(axis=1) <= budget]
    alone = loss(np.zeros((n, k)))[1]
    eye = np.eye(n * k)
    pair = np.stack([loss(row.reshape(n, k))[1].ravel() - alone.ravel() for row in eye])
    total = alone[np.arange(n), every].sum(axis=1)
    flat = every + k * np.arange(n)
    for i, j in itertools.combinations(range(n), 2):
        total = total + pair[flat[:, i], flat[:, j]]
    return float(total.min())


def gap(strength: float, result: Result, *, seeds: int = 12) -> Evidence:
    """Gap to the optimum as a share of the proxy's gap."""
    values = []
    for seed in range(seeds):
        loss, cost, _, budget = problem(seed, SMALL, strength)
        best = brute(loss, cost, budget)
        ours, theirs, _ = solved(seed, SMALL, strength, result)
        values.append((ours - best) - 0.5 * (theirs - best))
    return measured(
        f"gap to the optimum, {result}",
        values,
        BELOW_ZERO,
        claim=f"Where groups interact, the gap of `{result}` to the optimum is less than half of the proxy's"
        " (gap minus half of the proxy's)",
        baseline="brute force",
        budget="equal cost",
    )


def evolution(loss: Loss, cost: F64, budget: int, calls: int, rng: np.random.Generator) -> float:
    """Smallest loss of a (1 + 1) search: one or two groups change, kept if the choice fits and is better."""
    n, k = cost.shape
    best = np.zeros(n, np.int64)
    lowest, eye = loss(np.eye(k)[best])[0], np.eye(k)
    while calls > 0:
        trial = best.copy()
        at = rng.choice(n, size=int(rng.integers(1, 3)), replace=False)
        trial[at] = rng.integers(0, k, len(at))
        if cost[np.arange(n), trial].sum() > budget:
            continue
        calls -= 1
        value = loss(eye[trial])[0]
        if value < lowest:
            best, lowest = trial, value
    return lowest


def against_evolution(strength: float, *, seeds: int = 12) -> Evidence:
    """RCO's best sample against an evolutionary search with three times the calls."""
    values = []
    for seed in range(seeds):
        loss, cost, _, budget = problem(seed, LARGE, strength)
        ours, _, calls = solved(seed, LARGE, strength, "best")
        values.append(ours - evolution(loss, cost, budget, 3 * calls, np.random.default_rng([seed, 53])))
    return measured(
        "best against evolution",
        values,
        BELOW_ZERO,
        claim="Where groups interact (20 of 5 options), the loss of `best` is below that of an evolutionary search"
        " (difference)",
        baseline="(1 + 1) evolutionary search",
        budget="equal cost; three calls of the loss for each one with a gradient",
    )


def on_budget(*, seeds: int = 12) -> Evidence:
    """How far the expected cost is off the budget at the end."""
    values = []
    for seed in range(seeds):
        loss, cost, error, budget = problem(seed, LARGE, 0.5)
        solution = riemannian(loss, cost, budget, -error, rng=np.random.default_rng([seed, 52]), steps=50)
        values.append(abs(expected_cost(solution.logits, cost) - budget) / budget)
    return measured(
        "expected cost",
        values,
        (-np.inf, 1e-6),
        claim="The expected cost is within 1e-6 of the budget (relative distance)",
        baseline="the budget",
        budget="50 steps",
    )


def antithetic(*, wrong: bool = False, seeds: int = 20, draws: int = 20_000) -> Evidence:
    """Do pairs of Gumbel samples choose in proportion to p? The pair g, -g does not."""
    p, values = np.array([0.6, 0.3, 0.1]), []
    for seed in range(seeds):
        g = gumbel_pairs(2 * draws, (3,), np.random.default_rng([seed, 54]))
        if wrong:
            g[draws:] = -g[:draws]
        chosen = np.bincount(np.argmax(np.log(p) + g, axis=1), minlength=3) / (2 * draws)
        values.append(float(np.abs(chosen - p).max()))
    return measured(
        "antithetic pairs" + (", g and -g" if wrong else ""),
        values,
        (0.0, 0.01),
        claim=f"With pairs {'g and -g' if wrong else 'u and 1 - u'}, options of p = 0.6, 0.3, 0.1 are chosen as"
        " often as that (largest difference below 0.01)",
        baseline="p",
        budget=f"{2 * draws:,} samples a seed",
    )
