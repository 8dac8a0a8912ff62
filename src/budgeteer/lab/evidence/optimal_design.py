"""Optimal design (arXiv 2604.01418): are scores on other questions predicted better, per question and per token?

1,000 questions with four abilities (a general one that all load on, three specific ones), slopes log-normal,
difficulties normal, costs 100 * exp(normal) tokens; the calibrated parameters are the true ones plus noise of std
0.15. Tested models have standard normal abilities. The targets are the mean scores on 8 held-out tasks of 40
questions each, predicted at the posterior mode; the error is the mean absolute error over tasks, against expected
scores. Four rounds, each of a quarter of the budget.

Calibrated: 120 questions in two groups, item parameters fitted to the simulated answers of 60 models, 25 further models
are asked 16 questions in four rounds; the error is that of the share of right answers to all 120.
"""

from __future__ import annotations

import numpy as np

from budgeteer.allocate import Bank, optimal_design, uniform
from budgeteer.core.allocator import Allocator
from budgeteer.core.plan import ENDED, F64, Items, Outcomes
from budgeteer.lab.ability import About, Responses, estimate, fitted
from budgeteer.lab.evidence import BELOW_ONE, BELOW_ZERO, Evidence, Region, declare, measured

QUESTIONS, ABILITIES, TASKS, EACH, MODELS = 1000, 4, 8, 40, 8

DECLARED = declare(
    "simulation",
    claims=(
        "error against random, 16 questions",
        "error against random, 1,600 tokens",
        "error against undiscounted, 1,600 tokens",
        "error against random, calibrated",
        "error against the share of random, calibrated",
    ),
    controls=("error against random, 16 questions, alike",),
)


def experiments() -> list[Evidence]:
    """All of optimal design's experiments."""
    return [
        error("random", tokens=False),
        error("random", tokens=True),
        error("undiscounted", tokens=True, seeds=36),
        error("random", tokens=False, alike=True, seeds=72),
        *calibrated(),
    ]


def world(seed: int, alike: bool) -> tuple[F64, F64, F64]:
    """Slopes [QUESTIONS + tasks' questions, ABILITIES], intercepts, costs."""
    rng = np.random.default_rng([seed, 41])
    n = QUESTIONS + TASKS * EACH
    slope = np.zeros((n, ABILITIES))
    slope[:, 0] = rng.lognormal(-0.2, 0.5, n)
    slope[np.arange(n), rng.integers(1, ABILITIES, n)] = rng.lognormal(-0.2, 0.5, n)
    intercept, cost = rng.normal(0, 1.5, n), 100 * rng.lognormal(0, 1.0, n)
    if alike:
        slope[:QUESTIONS], intercept[:QUESTIONS], cost[:QUESTIONS] = slope[0], intercept[0], 100.0
    return slope, intercept, cost


def predicted(slope: F64, intercept: F64, theta: F64) -> F64:
    """Expected scores [TASKS] at an ability."""
    p = 1 / (1 + np.exp(-(slope @ theta - intercept)))
    return np.asarray(p.reshape(TASKS, EACH).mean(axis=1), dtype=np.float64)


def run(chosen: Allocator, reader: Allocator, cost: F64, budget: float, seed: int, truth: tuple[F64, F64]) -> float:
    """Mean absolute error of one design after its tokens, over MODELS tested models.

    ``chosen`` picks the questions, ``reader`` turns answers into an ability, the same for all designs.
    """
    slope, intercept = truth
    rng, draws, errors = np.random.default_rng([seed, 42]), np.random.default_rng([seed, 44]), []
    keys = tuple(f"q{i:04d}" for i in range(QUESTIONS))
    for _ in range(MODELS):
        theta = rng.normal(size=ABILITIES)
        answers = rng.random(QUESTIONS) < 1 / (1 + np.exp(-(slope[:QUESTIONS] @ theta - intercept[:QUESTIONS])))
        open_, left = np.arange(QUESTIONS), budget
        belief = reader.init(Items((), np.zeros(0)))
        for part in (0.25, 1 / 3, 0.5, 1.0):  # four equal rounds
            items = Items(tuple(keys[i] for i in open_), cost[open_])
            plan = chosen.allocate(int(left * part), items, belief, rng=draws)
            asked = open_[plan.units > 0]
            left -= plan.expected_cost
            reward, status = answers[asked].astype(np.float64), np.full(len(asked), ENDED, np.int8)
            outcome = Outcomes(tuple(keys[i] for i in asked), asked * 0, reward, reward * 0, status)
            belief = reader.observe(belief, outcome)
            open_ = np.setdiff1d(open_, asked)
        task = slope[QUESTIONS:], intercept[QUESTIONS:]
        errors.append(np.abs(predicted(*task, belief.mean) - predicted(*task, theta)).mean())
    return float(np.mean(errors))


def error(against: str, *, tokens: bool, alike: bool = False, seeds: int = 12) -> Evidence:
    """Error over the error of random questions, or of the design that ignores costs."""
    values, rows = [], []
    for seed in range(seeds):
        slope, intercept, cost = world(seed, alike)
        rng = np.random.default_rng([seed, 43])
        noise = 0.0 if alike else 0.15
        seen = (
            slope + noise * rng.normal(size=slope.shape) * (slope != 0),
            intercept + noise * rng.normal(size=len(slope)),
        )
        bank = Bank(tuple(f"q{i:04d}" for i in range(QUESTIONS)), seen[0][:QUESTIONS], seen[1][:QUESTIONS])
        p = 1 / (1 + np.exp(seen[1][QUESTIONS:]))  # at the prior's mean
        aims = ((p * (1 - p))[:, None] * seen[0][QUESTIONS:]).reshape(TASKS, EACH, -1).mean(axis=1)
        price = cost[:QUESTIONS] if tokens else np.ones(QUESTIONS)
        budget = 1600.0 if tokens else 16.0
        ours = optimal_design(bank, aims)
        theirs = uniform(1) if against == "random" else optimal_design(bank, aims, 0.0)
        reader = optimal_design(bank, aims)
        pair = [run(design, reader, price, budget, seed, (slope, intercept)) for design in (ours, theirs)]
        values.append(pair[0] - pair[1] if alike else pair[0] / pair[1])  # a noisy ratio is above 1 on average
        rows.append(pair)
    mean = np.mean(rows, axis=0)
    region: Region = (-0.01, 0.01) if alike else BELOW_ONE
    criterion = "information per token" if tokens else "information"
    unit = "1,600 tokens" if tokens else "16 questions"
    effect = "is within 0.01 of" if alike else "is below"
    other = {"random": "that of random questions", "undiscounted": "that of choice by information alone"}[against]
    return measured(
        f"error against {against}, {unit}" + (", alike" if alike else ""),
        values,
        region,
        claim=f"After {unit}{' that are all alike' * alike}, with questions chosen by {criterion}, the error of"
        f" predicted scores {effect} {other} ({'difference' if alike else 'ratio'})",
        baseline="uniform over questions" if against == "random" else "discount = 0",
        budget=f"equal: {unit} a tested model",
        details=[{"design": float(mean[0]), against: float(mean[1])}],
    )


def calibrated(*, seeds: int = 8) -> list[Evidence]:
    """Errors of chosen questions minus those of random ones, with a bank that was fitted to answers."""
    chosen, random, share = (np.zeros(seeds) for _ in range(3))
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 45])
        slope, n = np.zeros((120, 3)), 120
        slope[:, 0], slope[np.arange(n), 1 + np.arange(n) % 2] = rng.lognormal(0, 0.4, n), 0.5
        chance = 1 / (1 + np.exp(-(rng.normal(size=(85, 3)) @ slope.T - rng.normal(0, 1.5, n))))
        right = (rng.random(chance.shape) < chance).astype(np.float64)
        keys = tuple(f"q{i:03d}" for i in range(n))
        known = About(group={key: "ab"[i % 2] for i, key in enumerate(keys)})
        bank, _ = fitted(Responses(tuple(map(str, range(60))), keys, right[:60]), known)
        for row in right[60:]:
            truth, answers = dict(zip(keys, row.tolist(), strict=True)), dict[str, float]()
            for _ in range(4):
                answers |= {key: truth[key] for key in estimate(bank, known, answers, 4).ask}
            drawn = {key: truth[key] for key in rng.permutation(keys)[:16].tolist()}
            chosen[seed] += abs(estimate(bank, known, answers, 0).scores[0].mean - row.mean()) / 25
            random[seed] += abs(estimate(bank, known, drawn, 0).scores[0].mean - row.mean()) / 25
            share[seed] += abs(np.mean(list(drawn.values())) - row.mean()) / 25
    said = [{"chosen": chosen.mean(), "random": random.mean(), "share of random": share.mean()}]
    return [
        measured(
            f"error against {name}, calibrated",
            (chosen - theirs).tolist(),
            BELOW_ZERO,
            claim="With item parameters fitted to the answers of 60 models, 16 chosen questions predict the score of a"
            f" further model better than {words} (difference of mean absolute errors)",
            baseline=words,
            budget="16 questions",
            details=said,
        )
        for name, theirs, words in (
            ("random", random, "16 random ones with the same item parameters"),
            ("the share of random", share, "the share of right answers to 16 random ones"),
        )
    ]
