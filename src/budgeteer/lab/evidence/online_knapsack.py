"""ZCL thresholds (arXiv 2510.16499 uses them to compose agents): is the value within ln(U/L) + 1 of the optimum?

L = 1, U = 50, so the bound is 4.91; each candidate costs 0.2 % of the budget. Optima are exact: fractional knapsack
with equal costs, which is the best set. Random: densities log-uniform in [L, U], ten budgets' worth. Rising: each
level of density, from L to some last level, fills a whole budget; the last level is the worst of 40 for the
threshold, jittered within a level. The composer: 40 components of costs 1 to 4 with capabilities that are true in 35
%, a description score of correlation rho with them, and a test that is right in 90 %, charged 0.1 a test to the same
budget of 20.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from budgeteer.core.plan import F64
from budgeteer.lab.evidence import ABOVE_ZERO, Evidence, declare, measured
from budgeteer.online import online_knapsack

LOW, HIGH, ITEMS = 1.0, 50.0, 500
"""Densities, and how many candidates fill the budget."""
BOUND = math.log(HIGH / LOW) + 1
SEEDS = 20

DECLARED = declare(
    "simulation",
    claims=(
        "ratio, random",
        "ratio, rising",
        "bound is sharp",
        "composer, rho = 0",
    ),
    controls=("composer, rho = 1",),
    must_fail=(
        "ratio, rising, accept all",
        "ratio, rising, large candidates",
    ),
)


def experiments() -> list[Evidence]:
    """All of the online knapsack's experiments."""
    return [
        ratio("random"),
        ratio("rising"),
        tight(),
        ratio("rising", accept_all=True),
        ratio("rising", items=5),
        composer(0.0),
        composer(1.0),
    ]


def collect(density: F64, items: int = ITEMS, accept_all: bool = False) -> F64:
    """Value collected so far from unit-cost candidates in this order, with a budget of ``items``."""
    low, high = (1e-9, 1e-9) if accept_all else (LOW, HIGH)
    method = online_knapsack(items, low, high)
    state, gained = method.init(), np.zeros(len(density))
    for t, value in enumerate(density.tolist()):
        option, state = method.step(state, (value,), ((1.0,),))
        gained[t] = value if option == 0 else 0.0
    return np.cumsum(gained)


def best(density: F64, items: int) -> float:
    """Value of the best set in hindsight."""
    return float(np.sort(density)[-items:].sum())


def worst_rising(items: int, accept_all: bool, rng: np.random.Generator, levels: int = 40) -> float:
    """Largest optimum / value over all last levels of a rising stream."""
    edges = np.geomspace(LOW, HIGH, levels)
    jitter = np.exp(rng.uniform(-0.5, 0.5, (levels, items)) * math.log(HIGH / LOW) / (levels - 1))
    density = np.clip(edges[:, None] * jitter, LOW, HIGH).ravel()
    got = collect(density, items, accept_all)  # online: the value of a shorter stream is that of its prefix
    return max(best(density[:end], items) / float(got[end - 1]) for end in range(items, len(density) + 1, items))


def ratios(stream: str, items: int, accept_all: bool, seeds: int) -> F64:
    """Optimum over value, one a seed."""
    values = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 21])
        if stream == "rising":
            values.append(worst_rising(items, accept_all, rng))
        else:
            density = np.exp(rng.uniform(math.log(LOW), math.log(HIGH), 10 * items))
            values.append(best(density, items) / float(collect(density, items, accept_all)[-1]))
    return np.array(values)


def ratio(stream: str, *, items: int = ITEMS, accept_all: bool = False, seeds: int = SEEDS) -> Evidence:
    """Is the ratio within the bound? Its sharpness, a method without a threshold, and large candidates may break it."""
    who = "accepting everything that fits" if accept_all else "with the threshold"
    size = "" if items == ITEMS else f", with candidates of {1 / items:.0%} of the budget"
    return measured(
        f"ratio, {stream}" + (", accept all" if accept_all else "") + (", large candidates" if size else ""),
        ratios(stream, items, accept_all, seeds),
        (0.0, BOUND),
        claim=f"On a {stream} stream{size}, {who}, the optimum is less than ln(U/L) + 1 = {BOUND:.2f} times the value",
        baseline="best set in hindsight",
        budget=f"one budget of {items} candidates",
    )


def tight(*, seeds: int = SEEDS) -> Evidence:
    """Is the bound nearly reached? Then no sharper analysis of this threshold exists."""
    return measured(
        "bound is sharp",
        ratios("rising", ITEMS, False, seeds) / BOUND,
        (0.9, math.inf),
        claim="On the worst rising stream the ratio is above 90 % of ln(U/L) + 1 (share of the bound)",
        baseline="the bound",
        budget=f"one budget of {ITEMS} candidates",
    )


def composer(rho: float, *, seeds: int = 400) -> Evidence:
    """Threshold with tests, tests paid from the budget, against buying by description per cost; true capability."""
    values, rows = [], []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 22])
        n, budget, test = 40, 20.0, 0.1
        cost = rng.uniform(1, 4, n)
        latent, other = rng.normal(size=n), rng.normal(size=n)
        able = latent > np.quantile(latent, 0.65)
        described = rho * latent + math.sqrt(1 - rho**2) * other
        order = np.argsort(-described / cost)
        passed = np.where(rng.random(n) < 0.9, able, ~able)
        method = online_knapsack(budget, 1 / 4, 1.0)
        state, worth = method.init(), 0
        for i in order.tolist():
            if state.left[0] < test:
                break
            state = method.observe(state, (0.0,), (test,))
            option, state = method.step(state, (float(passed[i]),), ((float(cost[i]),),))
            worth += int(able[i]) if option == 0 else 0
        left, plain = budget, 0
        for i in order.tolist():
            if cost[i] <= left:
                left -= float(cost[i])
                plain += int(able[i])
        values.append(float(worth - plain))
        rows.append((worth, plain))
    mean = np.mean(rows, axis=0)
    details: list[dict[str, Any]] = [{"threshold with tests": float(mean[0]), "description": float(mean[1])}]
    return measured(
        f"composer, rho = {rho:g}",
        values,
        ABOVE_ZERO if rho == 0 else (-math.inf, 0.25),
        claim=f"When descriptions correlate {rho:g} with capability, able components bought, minus those bought by"
        f" description per cost, are {'above 0' if rho == 0 else 'below 0.25: testing gains nothing'}",
        baseline="description per cost",
        budget="20, tests included",
        details=details,
    )
