"""Conciseness reminder (BenchOverflow), measured as the paper does: CSR@k and the distribution of lengths.

150 questions a seed on a simulated endpoint whose answers have log-normal lengths (median 80, log-std 1), cut at 400
tokens. With the sentence "Be concise" in the prompt a share of the questions is answered at half the length: 70 % of
them ("follows"), or none ("ignores"). The answer stands at the end, so a cut one is lost; the reminder does not change
it otherwise. That models follow such a reminder is the paper's finding and assumed here; what is tested is that the
strategy passes it on and that the measures tell the two endpoints apart.
"""

from __future__ import annotations

import random

import numpy as np

from budgeteer.core.plan import F64
from budgeteer.lab.evidence import BELOW_ZERO, Evidence, Region, declare, measured
from budgeteer.lab.metrics import csr, ecdf
from budgeteer.lab.simulated import Run, Simulated, play
from budgeteer.lab.thinkers import RIGHT, STYLE, lognormal
from budgeteer.solve import Strategy
from budgeteer.strategies import conciseness, direct

QUESTIONS, MOST = 150, 400

DECLARED = declare(
    "simulation",
    claims=(
        "saturation, follows",
        "distribution, follows",
        "accuracy, follows",
    ),
    controls=("saturation, ignores",),
)


def experiments() -> list[Evidence]:
    """The tail, the distribution, the accuracy; and an endpoint that ignores the reminder."""
    return [saturation("follows"), saturation("ignores"), above("follows"), accuracy("follows")]


def run(strategy: Strategy, endpoint: str, seed: int) -> Run:
    def write(prompt: str, rng: random.Random) -> str:
        own = random.Random(f"{seed} {prompt.split()[0].rstrip(':')}")
        length, follows = lognormal(own, 80, 1.0), own.random() < 0.7
        if "concise" in prompt and follows and endpoint == "follows":
            length = max(1, length // 2)
        return "." * length + "|" + RIGHT + "\n"

    questions = [f"q{i}" for i in range(QUESTIONS)]
    return play(strategy, questions, STYLE, Simulated(write, characters=True), budget=2000, kind="output", seed=seed)


def both(endpoint: str, seed: int, ours: Strategy | None = None) -> tuple[Run, Run]:
    return run(ours or conciseness(direct(MOST)), endpoint, seed), run(direct(MOST), endpoint, seed)


def saturation(endpoint: str, *, ours: Strategy | None = None, seeds: int = 10) -> Evidence:
    """CSR at the cap, less that without the reminder."""
    values = []
    for seed in range(seeds):
        a, b = both(endpoint, seed, ours)
        values.append(csr(a.output, MOST) - csr(b.output, MOST))
    region: Region = BELOW_ZERO if endpoint == "follows" else (-1e-9, 1e-9)
    return measured(
        f"saturation, {endpoint}",
        values,
        region,
        claim=f"On an endpoint that {endpoint} the reminder, CSR@{MOST} "
        f"{'falls' if endpoint == 'follows' else 'stays'} (difference)",
        baseline="the same question without it",
        budget=f"at most {MOST} tokens of output",
    )


def distance(ours: F64, base: F64) -> float:
    """One-sided Kolmogorov-Smirnov statistic the wrong way: how far the ECDF of ours lies below that of base."""
    x, share = ecdf(base)
    own, own_share = ecdf(ours)
    at = np.searchsorted(own, x, side="right")
    return float(np.max(share - np.concatenate([[0.0], own_share])[at]))


def above(endpoint: str, *, ours: Strategy | None = None, seeds: int = 10) -> Evidence:
    """Largest amount by which the ECDF of the lengths lies below that without the reminder."""
    values = []
    for seed in range(seeds):
        a, b = both(endpoint, seed, ours)
        values.append(distance(a.output, b.output))
    return measured(
        f"distribution, {endpoint}",
        values,
        (-1.0, 0.02),
        claim="The distribution of the lengths lies nowhere more than 0.02 above that without (one-sided distance)",
        baseline="the same question without it",
        budget=f"at most {MOST} tokens of output",
    )


def accuracy(endpoint: str, *, seeds: int = 10) -> Evidence:
    """Accuracy, less that without the reminder."""
    values = []
    for seed in range(seeds):
        a, b = both(endpoint, seed)
        values.append(float((a.score([RIGHT] * QUESTIONS) - b.score([RIGHT] * QUESTIONS)).mean()))
    return measured(
        f"accuracy, {endpoint}",
        values,
        (-0.001, 1.0),
        claim="Accuracy does not fall, as fewer answers are cut (difference)",
        baseline="the same question without it",
        budget=f"at most {MOST} tokens of output",
    )
