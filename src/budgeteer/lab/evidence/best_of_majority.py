"""Best-of-Majority (arXiv 2510.03199): does it get better with more samples where best of n is fooled?

The right answer has chance 1/20 (C* = 20), eight common wrong ones share 0.35, 400 rare ones the rest. Rewards are 1
for the right answer and 0 for others, plus an error: "inflated", one rare answer in ten has reward 2; "small",
normal noise of 0.05 an answer. alpha = 3 / (4 C*). 40 questions a seed; every question has its own errors. The right
answer is the likeliest of all here, so a model that decoded greedily to it would need no samples: what is tested is the
rule, not whether it pays. Pass@3 counts a question as right if one of the first three candidates is: the three best
scores, the three most frequent answers, or the three best scores among frequent answers.
"""

from __future__ import annotations

import random
import zlib

import numpy as np

from budgeteer.lab.evidence import ABOVE_ZERO, BELOW_ZERO, Evidence, Region, declare, measured
from budgeteer.lab.simulated import Simulated, answers_of, tasks_of
from budgeteer.solve import Strategy
from budgeteer.strategies import (
    best_of_majority,
    best_of_n,
    self_consistency,
)
from budgeteer.strategies.scorer import Scorer, programmatic

QUESTIONS, COVERAGE = 40, 20
ALPHA = 3 / (4 * COVERAGE)

DECLARED = declare(
    "simulation",
    claims=(
        "inflated errors, 200 samples, best of n",
        "inflated errors, 200 samples, majority",
        "growth of best of n",
        "growth of best of majority",
        "inflated errors, 200 samples, best of n, Pass@3",
        "inflated errors, 200 samples, majority, Pass@3",
        "falling regret",
    ),
    controls=("small errors, 50 samples, best of n", "small errors, 50 samples, best of n, Pass@3"),
)


def experiments() -> list[Evidence]:
    """All of Best-of-Majority's experiments."""
    return [
        gain("inflated", 200, "best of n", ABOVE_ZERO),
        gain("inflated", 200, "majority", ABOVE_ZERO),
        growth("best of n", BELOW_ZERO),
        growth("best of majority", ABOVE_ZERO),
        gain("small", 50, "best of n", BELOW_ZERO),
        gain("inflated", 200, "best of n", ABOVE_ZERO, k=3),
        gain("inflated", 200, "majority", ABOVE_ZERO, k=3),
        falling_regret(),
        gain("small", 50, "best of n", BELOW_ZERO, k=3),
    ]


def write(prompt: str, rng: random.Random) -> str:
    """A sample: R with 1/20, a common wrong answer with 0.35, else a rare one."""
    u = rng.random()
    answer = "R" if u < 1 / COVERAGE else f"c{rng.randrange(8)}" if u < 0.4 else f"r{rng.randrange(400)}"
    return f"x#{answer}\n"


def reward(errors: str) -> Scorer:
    """A scorer of traces, whose errors belong to (question, answer)."""

    def check(question: str, trace: str) -> float:
        answer = trace.partition("#")[2]
        noise = random.Random(zlib.crc32(f"{question} {answer}".encode()))
        if errors == "inflated":
            return 2.0 if answer[0] == "r" and noise.random() < 0.1 else float(answer == "R")
        return float(answer == "R") + noise.gauss(0, 0.05)

    return programmatic(check)


def strategy(name: str, errors: str, n: int) -> Strategy:
    """One of the three, with n samples."""
    if name == "best of n":
        return best_of_n(reward(errors), n)
    return self_consistency(n) if name == "majority" else best_of_majority(reward(errors), n, alpha=ALPHA)


def accuracy(strategy: Strategy, seed: int, k: int = 1) -> float:
    """Pass@k over the questions, which are named by the seed, so that each has errors of its own."""
    tasks = tasks_of(Simulated(write), (f"{seed}-{i}" for i in range(QUESTIONS)), seed)
    return float(np.mean(["R" in answer.submitted(k) for answer in answers_of(strategy, tasks)]))


def gain(
    errors: str, n: int, other: str, region: Region, *, k: int = 1, ours: Strategy | None = None, seeds: int = 6
) -> Evidence:
    """Pass@k minus another strategy's with the same samples. With small errors the filter can only drop the truth."""
    mine = strategy("best of majority", errors, n) if ours is None else ours
    measure = "accuracy" if k == 1 else f"Pass@{k}"
    return measured(
        f"{errors} errors, {n} samples, {other}" + f", {measure}" * (k > 1),
        [accuracy(mine, seed, k) - accuracy(strategy(other, errors, n), seed, k) for seed in range(seeds)],
        region,
        claim=f"With {errors} errors and {n} samples its {measure} is {'above' if region == ABOVE_ZERO else 'below'}"
        f" that of {other} (difference)",
        baseline=other,
        budget=f"the same {n} samples",
    )


def growth(name: str, region: Region, *, seeds: int = 6) -> Evidence:
    """Accuracy with 400 samples minus that with 20, under inflated errors."""
    few, many = (strategy(name, "inflated", n) for n in (20, 400))
    return measured(
        f"growth of {name}",
        [accuracy(many, seed) - accuracy(few, seed) for seed in range(seeds)],
        region,
        claim=f"With inflated errors the accuracy of {name} {'rises' if region == ABOVE_ZERO else 'falls'} from 20 to"
        " 400 samples (difference)",
        baseline="itself with 20 samples",
        budget="400 samples against 20",
    )


def falling_regret(*, seeds: int = 6) -> Evidence:
    """Pass@10 minus Pass@1 with 50 samples under inflated errors: more candidates, less regret."""
    ours = strategy("best of majority", "inflated", 50)
    return measured(
        "falling regret",
        [accuracy(ours, seed, 10) - accuracy(ours, seed) for seed in range(seeds)],
        ABOVE_ZERO,
        claim="With inflated errors and 50 samples ten candidates hold the right answer more often than one (Pass@10"
        " minus Pass@1)",
        baseline="itself with one candidate",
        budget="the same 50 samples",
    )
