"""Adaptive voting (rule of arXiv 2305.11860, and ours): the answers of self-consistency for fewer tokens?

100 questions, 32 samples at most. The right answer has chance p from Beta(1.2, 0.8), the wrong ones share the rest
geometrically (1/2, 1/4, ... over 8); in the control all 20 answers are equally likely. A trace is 20 to 60 tokens.
The two sides draw different samples, hence the wide interval of the accuracies; benchmarks/search.py pairs them.
Greedy decoding is taken to give the likeliest answer here, which is an assumption; benchmarks/search.py decodes.
"""

from __future__ import annotations

import random
from functools import lru_cache

import numpy as np

from budgeteer.lab.evidence import ABOVE_ZERO, BELOW_ONE, Evidence, Region, declare, measured
from budgeteer.lab.simulated import Simulated, answers_of, tasks_of, tokens_of
from budgeteer.solve import Strategy
from budgeteer.strategies import adaptive_vote, self_consistency

QUESTIONS, SAMPLES = 100, 32
TAIL = [2.0**-j for j in range(1, 9)]
"""How the wrong answers share what is left, the most frequent one first."""

DECLARED = declare(
    "simulation",
    claims=(
        "tokens, risk 0.1",
        "accuracy, risk 0.1",
        "tokens, rule leads, risk 0.05",
        "accuracy, rule leads, risk 0.05",
        "tokens, certain rule",
        "accuracy, certain rule",
        "accuracy, risk 0.1, over greedy",
    ),
    controls=(
        "tokens, risk 0.1, hopeless questions",
        "accuracy, risk 0.1, hopeless questions",
    ),
)


def experiments() -> list[Evidence]:
    """All of adaptive voting's experiments."""
    return [
        *against(adaptive_vote(SAMPLES), "risk 0.1", (0.0, 0.5)),
        *against(adaptive_vote(SAMPLES, rule="leads", risk=0.05), "rule leads, risk 0.05", (0.0, 0.5)),
        *against(adaptive_vote(SAMPLES, risk=0.0), "certain rule", BELOW_ONE),
        *against(adaptive_vote(SAMPLES), "risk 0.1", (0.9, 1.0 + 1e-9), hopeless=True),
        over_greedy(),
    ]


def rates(seed: int) -> list[float]:
    """The chance of the right answer, of each question."""
    return [float(rate) for rate in np.random.default_rng([seed, 61]).beta(1.2, 0.8, QUESTIONS)]


def model(seed: int, hopeless: bool = False) -> Simulated:
    """Question i is its number; the right answer is R."""
    rate = rates(seed)

    def write(prompt: str, rng: random.Random) -> str:
        if hopeless:
            answer = rng.choice(["R", *map(str, range(19))])
        elif rng.random() < rate[int(prompt)]:
            answer = "R"
        else:
            answer = str(rng.choices(range(8), TAIL)[0])
        return "x " * rng.randrange(20, 60) + f"#{answer}\n"

    return Simulated(write)


@lru_cache
def full(seed: int, hopeless: bool) -> tuple[float, int]:
    """Self-consistency's."""
    return play(self_consistency(SAMPLES), seed, hopeless)


def play(strategy: Strategy, seed: int, hopeless: bool = False) -> tuple[float, int]:
    """(accuracy, output tokens)."""
    tasks = tasks_of(model(seed, hopeless), map(str, range(QUESTIONS)), seed)
    answers = answers_of(strategy, tasks)
    return float(np.mean([answer.answer == "R" for answer in answers])), tokens_of(tasks)


def against(strategy: Strategy, name: str, region: Region, *, hopeless: bool = False, seeds: int = 6) -> list[Evidence]:
    """Tokens over self-consistency's, and the difference in accuracy."""
    ours = [play(strategy, seed, hopeless) for seed in range(seeds)]
    theirs = [full(seed, hopeless) for seed in range(seeds)]
    where = ", hopeless questions" if hopeless else ""
    baseline, budget = f"self-consistency with {SAMPLES} samples", f"at most {SAMPLES} samples a question"
    low, high = region
    text = f"above {low}" if hopeless else f"below {high:g}"
    return [
        measured(
            f"tokens, {name}{where}",
            [a[1] / b[1] for a, b in zip(ours, theirs, strict=True)],
            region,
            claim=f"{name}{where}: the output tokens are {text} of self-consistency's (ratio)",
            baseline=baseline,
            budget=budget,
        ),
        measured(
            f"accuracy, {name}{where}",
            [a[0] - b[0] for a, b in zip(ours, theirs, strict=True)],
            (-0.05, 0.05),
            claim=f"{name}{where}: the accuracy is within 0.05 of self-consistency's (difference)",
            baseline=baseline,
            budget=budget,
        ),
    ]


def over_greedy(ours: Strategy | None = None, *, seeds: int = 6) -> Evidence:
    """Accuracy minus that of the likeliest answer, which costs one trace."""
    strategy = adaptive_vote(SAMPLES) if ours is None else ours
    plays = [play(strategy, seed) for seed in range(seeds)]
    likeliest = [float(np.mean([p > (1 - p) * TAIL[0] / sum(TAIL) for p in rates(seed)])) for seed in range(seeds)]
    tokens = np.mean([tokens for _, tokens in plays]) / QUESTIONS
    return measured(
        "accuracy, risk 0.1, over greedy",
        [accuracy - best_accuracy for (accuracy, _), best_accuracy in zip(plays, likeliest, strict=True)],
        ABOVE_ZERO,
        claim="risk 0.1: the accuracy is above that of the likeliest answer (difference)",
        baseline="greedy decoding, taken to give the likeliest answer",
        budget=f"not equal: {tokens:.0f} output tokens a question against about 41 of one trace",
    )
