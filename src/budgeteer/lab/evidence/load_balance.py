"""Load balancing without an auxiliary loss (arXiv 2408.15664, 2512.03915): are loads even, and at what score?

16 experts, 2 a token, 512 tokens a step; scores are sigmoids of standard normal logits plus a skew an expert (normal,
std 1). Drifting: the skews walk, 0.02 a step. 400 steps; figures are means over the last 50. Violation is (largest
load - mean) / mean. The best assignment of a step is the transport problem with even loads, solved exactly.
"""

from __future__ import annotations

import math

import numpy as np

from budgeteer.core.plan import F64
from budgeteer.core.router import Router
from budgeteer.lab.evidence import Evidence, declare, measured
from budgeteer.online import load_balance
from budgeteer.online._load_balance import Bias

EXPERTS, CHOSEN, TOKENS, STEPS, LAST = 16, 2, 512, 400, 50

DECLARED = declare(
    "simulation",
    claims=(
        "violation, sign, rate 0.01",
        "violation, proportional, rate 0.01",
        "violation, proportional, rate 0.01, drifting",
        "preference rule",
        "score",
    ),
    must_fail=(
        "violation, sign, rate 0.1",
        "violation, none, rate 0.01",
    ),
)


def experiments() -> list[Evidence]:
    """All of load balancing's experiments."""
    return [
        violation("sign"),
        violation("proportional"),
        violation("proportional", drift=0.02),
        violation("sign", rate=0.1),
        violation("none"),
        preference(),
        score(),
    ]


def scores(skew: F64, rng: np.random.Generator) -> F64:
    """Scores [TOKENS, EXPERTS] of one step."""
    return np.asarray(1 / (1 + np.exp(-rng.normal(size=(TOKENS, EXPERTS)) - skew)), dtype=np.float64)


def make(how: str, rate: float) -> Router:
    """The router of this name; "none" never moves its bias."""
    if how == "none":
        return load_balance(CHOSEN)._replace(observe=lambda state, load: state)
    return load_balance(CHOSEN, rate, "sign" if how == "sign" else "proportional")


def steps(router: Router, seed: int, drift: float = 0.0) -> tuple[list[float], Bias, F64, np.random.Generator]:
    """Violations [STEPS], the last state and skew, and the generator for more steps."""
    rng = np.random.default_rng([seed, 71])
    skew, state, imbalances = rng.normal(size=EXPERTS), router.init(EXPERTS), []
    for _ in range(STEPS):
        seen = scores(skew, rng)
        chosen, weight = router.route(state, seen)
        if not np.array_equal(weight, seen[np.arange(TOKENS)[:, None], chosen]):
            raise AssertionError("the bias changed the weight of a chosen expert")
        load = np.bincount(chosen.ravel(), minlength=EXPERTS)
        imbalances.append(float(load.max() / load.mean() - 1))
        state = router.observe(state, load)
        skew = skew + drift * rng.normal(size=EXPERTS)
    return imbalances, state, skew, rng


def violation(how: str, *, rate: float = 0.01, drift: float = 0.0, seeds: int = 8) -> Evidence:
    """Violation once the bias has settled. Even loads with random tokens have one of about 0.2."""
    values = [float(np.mean(steps(make(how, rate), seed, drift)[0][-LAST:])) for seed in range(seeds)]
    name = "no bias" if how == "none" else f"the {how} rule at rate {rate:g}"
    return measured(
        f"violation, {how}, rate {rate:g}" + (", drifting" if drift else ""),
        values,
        (0.0, 0.35),
        claim=f"With {name}{' and drifting skews' * (drift > 0)}, the largest load exceeds the mean by less than 35 %",
        baseline=f"chance alone: {chance():.0%} for even routing at random",
        budget=f"{CHOSEN} experts a token",
    )


def chance(draws: int = 2000) -> float:
    """Violation of routing every token to random experts."""
    rng = np.random.default_rng(72)
    load = rng.multinomial(TOKENS * CHOSEN, np.full(EXPERTS, 1 / EXPERTS), size=draws)
    return float(np.mean(load.max(axis=1) / (TOKENS * CHOSEN / EXPERTS) - 1))


def preference(*, seeds: int = 8) -> Evidence:
    """Share of switches, on the same tokens, to an expert with no less load than the one left: none is allowed."""
    values = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 73])
        router = load_balance(1, 0.05, "proportional")
        seen, state, wrong, moves = scores(rng.normal(size=EXPERTS), rng), router.init(EXPERTS), 0, 0
        for _ in range(200):
            before = router.route(state, seen)[0].ravel()
            load = np.bincount(before, minlength=EXPERTS)
            state = router.observe(state, load)
            after = router.route(state, seen)[0].ravel()
            moved = before != after
            moves += int(moved.sum())
            wrong += int(np.sum(load[after[moved]] >= load[before[moved]]))
        values.append(wrong / max(moves, 1) if moves else math.nan)
    return measured(
        "preference rule",
        values,
        (-math.inf, 1e-9),
        claim="Tokens only switch to experts with less load (share of the other switches)",
        baseline="none",
        budget="the same tokens again",
    )


def best_score(seen: F64) -> float:
    """Largest summed score with even loads, by the transport problem."""
    from scipy.optimize import linprog
    from scipy.sparse import eye, kron

    n, k = seen.shape
    tokens, experts = kron(eye(n), np.ones((1, k))).tocsr(), kron(np.ones((1, n)), eye(k)).tocsr()
    solution = linprog(
        -seen.ravel(),
        A_eq=tokens,
        b_eq=np.full(n, CHOSEN),
        A_ub=experts,
        b_ub=np.full(k, n * CHOSEN / k),
        bounds=(0, 1),
        method="highs",
    )
    return -float(solution.fun)


def score(*, seeds: int = 8) -> Evidence:
    """Summed raw score of the routing against that of the best even assignment of the same tokens."""
    values, free = [], []
    for seed in range(seeds):
        router = make("proportional", 0.01)
        _, state, skew, rng = steps(router, seed)
        seen = scores(skew, rng)
        best = best_score(seen)
        values.append(float(router.route(state, seen)[1].sum()) / best - 1)
        free.append(float(router.route(router.init(EXPERTS), seen)[1].sum()) / best - 1)
    return measured(
        "score",
        values,
        (-0.02, 0.02),
        claim="The summed score is within 2 % of that of the best even assignment (relative difference)",
        baseline="transport problem (HiGHS)",
        budget=f"{CHOSEN} experts a token",
        details=[{"without a bias, loads uneven": float(np.mean(free))}],
    )
