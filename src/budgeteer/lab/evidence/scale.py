"""SCALE: does thinking about the difficult sub-problems alone beat thinking about as many at random?

5 sub-problems with hidden difficulty U(0, 1). Without thinking a sub-problem is solved with chance
sigmoid(8 (0.35 - d)) for 1 token, with thinking with chance sigmoid(8 (1.1 - d)) for 40; the answer is right if all
are. Scores are the difficulty plus normal noise; a random score is noise alone. The threshold of either side is the
one at which half of the sub-problems are thought about, so that expected tokens agree. 200 questions a seed.
"""

from __future__ import annotations

import math
import random
from functools import lru_cache

import numpy as np

from budgeteer.lab.evidence import ABOVE_ZERO, Evidence, Region, declare, measured
from budgeteer.lab.simulated import Simulated, answers_of, tasks_of, tokens_of
from budgeteer.solve import Strategy
from budgeteer.strategies import scale

QUESTIONS, PARTS = 200, 5

DECLARED = declare(
    "simulation",
    claims=(
        "accuracy, noise 0",
        "accuracy, noise 0.3",
        "ceiling",
    ),
    controls=(
        "accuracy, noise 1e+06",
        "tokens",
    ),
)


def experiments() -> list[Evidence]:
    """All of SCALE's experiments."""
    return [
        gain(0.0, ABOVE_ZERO),
        gain(0.3, ABOVE_ZERO),
        gain(1e6, (-0.05, 0.05)),
        tokens(0.3),
        ceiling(),
    ]


def difficulty(question: str, part: int) -> float:
    """Hidden, a function of the question."""
    return random.Random(f"{question} {part}").random()


def model() -> Simulated:
    """A prompt is "question:results so far:part "; a wrong part makes all that follow wrong."""

    def write(prompt: str, rng: random.Random) -> str:
        question, done, rest = prompt.split(":")
        part, thinks = int(rest.split(" ")[0]), not prompt.endswith("#")
        chance = 1 / (1 + math.exp(-8 * ((1.1 if thinks else 0.35) - difficulty(question, part))))
        answer = "R" if "W" not in done and rng.random() < chance else "W"
        return ("x " * 40 + "#" if thinks else "") + f"{answer}\n"

    return Simulated(write)


def strategy(noise: float, threshold: float | None = None, seed: int = 0) -> Strategy:
    """With scores of this noise; the threshold is their median unless given."""

    def rate(question: str, part: str) -> float:
        error = random.Random(f"{seed} noise {question} {part}").gauss(0, noise)
        # to 0..1 by rank: the median goes to 1/2 for every noise
        return 0.5 + math.atan(difficulty(question, int(part)) - 0.5 + error) / math.pi

    return scale(
        0.5 if threshold is None else threshold,
        plan=lambda question: [str(i) for i in range(PARTS)],
        difficulty=rate,
        ask=lambda question, known, part: f"{question}:{''.join(answer for _, answer in known)}:{part}",
        max_tokens=64,
    )


@lru_cache
def played(noise: float, scores: int, seed: int, threshold: float | None = None) -> tuple[float, int]:
    """Of one draw of scores."""
    return play(strategy(noise, threshold, scores), seed)


def play(strategy: Strategy, seed: int) -> tuple[float, int]:
    """(accuracy, output tokens)."""
    tasks = tasks_of(model(), (f"{seed}-{i}" for i in range(QUESTIONS)), seed)
    answers = answers_of(strategy, tasks)
    return float(np.mean([answer.answer == "R" for answer in answers])), tokens_of(tasks)


def gain(noise: float, region: Region, *, ours: Strategy | None = None, seeds: int = 8) -> Evidence:
    """Accuracy minus that of random modes; scores of endless noise are the null."""
    mine = [(played(noise, 1, seed) if ours is None else play(ours, seed))[0] for seed in range(seeds)]
    random_modes = [played(1e6, 2, seed)[0] for seed in range(seeds)]
    null = noise > 100
    return measured(
        f"accuracy, noise {noise:g}",
        [a - b for a, b in zip(mine, random_modes, strict=True)],
        region,
        claim=f"With score noise {noise:g} the accuracy is {'within 0.05 of' if null else 'above'} that of as many"
        " random modes (difference)",
        baseline="random modes",
        budget="half of the sub-problems are thought about",
    )


def tokens(noise: float, *, seeds: int = 8) -> Evidence:
    """That both sides spend the same."""
    ratio = [played(noise, 1, s)[1] / played(1e6, 2, s)[1] for s in range(seeds)]
    return measured(
        "tokens",
        ratio,
        (0.95, 1.05),
        claim=f"With score noise {noise:g} the tokens are within 5 % of those of random modes (ratio)",
        baseline="random modes",
        budget="half of the sub-problems are thought about",
    )


def ceiling(*, seeds: int = 8) -> Evidence:
    """Thinking about everything stays ahead, at a price."""
    values = [played(0.0, 1, seed, 0.0)[0] - played(0.0, 1, seed)[0] for seed in range(seeds)]
    return measured(
        "ceiling",
        values,
        ABOVE_ZERO,
        claim="Thinking about every sub-problem is more accurate than about the more difficult half (difference)",
        baseline="the more difficult half, perfect scores",
        budget="not equal: about 1.6 times the tokens",
    )
