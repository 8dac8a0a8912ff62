"""Length-filtered vote (arXiv 2502.07266): is the optimum where theory has it, and when does the filter help?

A chain of N steps on a question of difficulty T by a model of capability M is right with chance
A(N) = ((1 - T/C) (1 - T/(N M)))^N; in closed form N* = T Z / (M (Z + 1)) with Z = W_-1(-(1 - T/C) / e). Votes: 400
questions a seed, a chain's steps uniform over 1 to 20, wrong answers spread evenly over four. "Sharp": T from a uniform
1 to 3, M = 8, C = 10: short chains are right, and over all lengths the right answer is rarer than each wrong one.
"Mild": T from a uniform 1 to 4, M = 4, C = 30. "Flat": as mild, but every length has the question's mean chance.
Width 2, 3 groups.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from budgeteer.core.plan import F64
from budgeteer.lab.evidence import ABOVE_ZERO, BELOW_ZERO, Evidence, Region, declare, measured
from budgeteer.strategies._length_filtered_vote import filtered_vote

LONGEST, QUESTIONS = 20, 400
WORLDS = {"sharp": (1.0, 3.0, 8.0, 10.0), "mild": (1.0, 4.0, 4.0, 30.0), "flat": (1.0, 4.0, 4.0, 30.0)}
"""Least and most T, M, C."""

DECLARED = declare(
    "simulation",
    claims=(
        "optimum",
        "sharp, 5",
        "sharp, 16",
        "sharp, 100",
        "mild, 100",
    ),
    controls=(
        "flat, 16",
        "groups of one",
    ),
)


def experiments() -> list[Evidence]:
    """The optimum, the vote at three sizes, and two controls."""
    return [
        optimum(),
        *(vote("sharp", samples) for samples in (5, 16, 100)),
        vote("mild", 100),
        vote("flat", 16),
        singletons(),
    ]


def right(steps: F64, difficulty: float, capability: float, context: float) -> F64:
    """A(N), 0 where a step is too large for the model."""
    step_right = np.clip(1 - difficulty / (steps * capability), 0, 1)
    return np.asarray(((1 - difficulty / context) * step_right) ** steps)


def closed_form(difficulty: float, capability: float, context: float) -> float:
    """N*, real."""
    from scipy.special import lambertw

    z = float(lambertw(-(1 - difficulty / context) / np.e, -1).real)
    return difficulty * z / (capability * (z + 1))


def optimum(*, seeds: int = 20) -> Evidence:
    """Largest distance of the best whole N from N*, over 50 random (T, M, C) a seed."""
    values = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 51])
        steps, worst = np.arange(1.0, 2000.0), 0.0
        for _ in range(50):
            context, capability = rng.uniform(20, 100), rng.uniform(0.5, 5)
            difficulty = rng.uniform(1, 0.8 * context)
            best = steps[np.argmax(right(steps, difficulty, capability, context))]
            worst = max(worst, abs(float(best) - closed_form(difficulty, capability, context)))
        values.append(worst)
    return measured(
        "optimum",
        values,
        (-1e-9, 1.0),
        claim="The best whole N lies within a step of the closed form (distance)",
        baseline="search over all N",
        budget="none",
    )


def draw(world: str, samples: int, seed: int) -> list[tuple[list[str], list[int]]]:
    """Answers and lengths of every question; the right answer is "0"."""
    rng = np.random.default_rng([seed, 52, samples])
    steps, questions = np.arange(1.0, LONGEST + 1), []
    least, most, capability, context = WORLDS[world]
    for _ in range(QUESTIONS):
        chance = right(steps, rng.uniform(least, most), capability, context)
        if world == "flat":
            chance = np.full(LONGEST, chance.mean())
        size = rng.integers(1, LONGEST + 1, samples)
        wrong = rng.integers(1, 5, samples)
        answers = np.where(rng.random(samples) < chance[size - 1], 0, wrong)
        questions.append(([str(a) for a in answers], size.tolist()))
    return questions


def compare(world: str, samples: int, minimum: int, seed: int) -> tuple[float, float]:
    """Accuracy of the filtered and of the plain vote."""
    hits = np.zeros(2)
    for answers, sizes in draw(world, samples, seed):
        hits += filtered_vote(answers, sizes, 2, 3, minimum)[0] == "0", Counter(answers).most_common(1)[0][0] == "0"
    return float(hits[0]) / QUESTIONS, float(hits[1]) / QUESTIONS


def vote(world: str, samples: int, *, minimum: int = 2, seeds: int = 10) -> Evidence:
    """Accuracy, less that of the plain vote on the same samples."""
    pairs = [compare(world, samples, minimum, seed) for seed in range(seeds)]
    region: Region = ABOVE_ZERO if world != "flat" else (-1.0, 0.01)
    return measured(
        f"{world}, {samples}",
        [a - b for a, b in pairs],
        region,
        claim=f"Of {samples} samples, accuracy {world} in length, the filtered vote "
        f"{'gains nothing' if world == 'flat' else 'is more often right'} (difference)",
        baseline="majority of the same samples",
        budget="equal samples",
        details=[{"filtered": a, "plain": b} for a, b in pairs],
    )


def singletons(*, seeds: int = 10) -> Evidence:
    """Accuracy with groups of one, less that with groups of two and more."""
    values = [compare("sharp", 16, 1, seed)[0] - compare("sharp", 16, 2, seed)[0] for seed in range(seeds)]
    return measured(
        "groups of one",
        values,
        BELOW_ZERO,
        claim="Groups of one, of entropy 0, lower the accuracy (difference)",
        baseline="groups of two and more",
        budget="the same 16 samples",
    )
