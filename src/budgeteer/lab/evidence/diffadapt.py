"""DiffAdapt (arXiv 2510.19669) for black boxes: do short probes that choose the cap save tokens?

100 questions a seed. A third are easy (an answer after a log-normal median of 12 tokens), a third normal (240), a third
hard (never; the trace goes on to its cap); log-std 0.3. Traces close once they know. "Rising": hard questions know
after a median of 600 instead. "Short": hopeless again, with normal ones at 60. "Uninformative": the probes are answered
at random. Probes: 3 of 24 tokens. Most tokens 800 (short: 200); the bundles are 0.4, 1 and 0.5 of that. Thresholds are
calibrated on 100 other questions. Tokens include the probes.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import lru_cache

import numpy as np

from budgeteer.lab.evidence import BELOW_ONE, Evidence, Region, declare, measured
from budgeteer.lab.simulated import Run, Simulated, play
from budgeteer.lab.thinkers import RIGHT, STYLE, lognormal
from budgeteer.models.model import Choice, Request
from budgeteer.solve import Strategy
from budgeteer.strategies import diffadapt, direct
from budgeteer.strategies._diffadapt import Bundle, Record, Thresholds, agreement, calibrate

QUESTIONS, PROBES, PROBE = 100, 3, 24
PREFACE = "probe "
BUNDLES = (Bundle(0.5, 0.4), Bundle(0.8, 1.0), Bundle(0.4, 0.5))

DECLARED = declare(
    "simulation",
    claims=(
        "tokens, hopeless, informative",
        "accuracy, hopeless",
        "tokens, short, informative",
        "tokens against fail-fast",
    ),
    must_fail=(
        "tokens, hopeless, uninformative",
        "accuracy, rising",
    ),
)


def experiments() -> list[Evidence]:
    """Tokens and accuracy where hard questions are hopeless; where they are not; with probes that say nothing."""
    return [
        tokens("hopeless"),
        accuracy("hopeless"),
        tokens("hopeless", informative=False),
        tokens("short"),
        fixed(),
        accuracy("rising", calibrated_on="hopeless"),
    ]


def most(world: str) -> int:
    """Tokens of the largest bundle."""
    return 200 if world == "short" else 800


class Blind(Simulated):
    """Its probes, the calls of several choices, say nothing about the question."""

    def _choice(self, request: Request, i: int) -> Choice:
        assert isinstance(request.prompt, str)
        return super()._choice(replace(request, prompt=PREFACE + request.prompt) if request.n > 1 else request, i)


def model(world: str, seed: int, *, informative: bool = True) -> Simulated:
    """Each sample's length is drawn anew around the question's median."""

    def write(prompt: str, rng: random.Random) -> str:
        if prompt.startswith(PREFACE):
            return "." * rng.randrange(4, 2 * PROBE) + "|" + rng.choice("AB") + "\n"
        level = random.Random(f"{seed} {prompt.partition(':')[0]}").randrange(3)
        if level == 2 and world != "rising":
            return "." * 1000
        return "." * lognormal(rng, (12, most(world) * 3 // 10, 600)[level], 0.3) + "|" + RIGHT + "\n"

    return Simulated(write, characters=True) if informative else Blind(write, characters=True)


def run(strategy: Strategy, world: str, seed: int, *, informative: bool = True) -> Run:
    questions = [f"q{i}" for i in range(QUESTIONS)]
    return play(
        strategy, questions, STYLE, model(world, seed, informative=informative), budget=2000, kind="output", seed=seed
    )


@lru_cache
def thresholds(world: str, seed: int, informative: bool = True) -> Thresholds:
    """From records of other questions: probes, and all three bundles on each."""
    other = seed + 1000
    runs = [run(direct(round(b.share * most(world)), b.temperature), world, other) for b in BUNDLES]
    scores = np.stack([played.score([RIGHT] * QUESTIONS) for played in runs], 1)
    spent = np.stack([played.output for played in runs], 1)
    records = []
    write, before = model(world, other).write, "" if informative else PREFACE
    for i in range(QUESTIONS):
        texts = [write(f"{before}q{i}:", random.Random(f"{k} {i}")) for k in range(PROBES)]
        cut = [text[:PROBE] for text in texts]
        answers = [STYLE.read(text) if len(text) <= PROBE else None for text in texts]
        length = sum(map(len, cut)) / (PROBES * PROBE)
        records.append(Record(agreement(answers), length, tuple(scores[i].tolist()), tuple(spent[i].tolist())))
    return calibrate(records)


def adaptive(world: str, seed: int, informative: bool = True) -> Strategy:
    return diffadapt(thresholds(world, seed, informative), BUNDLES, PROBES, PROBE, most(world))


def tokens(world: str, *, informative: bool = True, seeds: int = 5) -> Evidence:
    """Ratio of the tokens to those of the normal bundle for all."""
    values, details = [], []
    for seed in range(seeds):
        chosen = adaptive(world, seed, informative)
        a, b = run(chosen, world, seed, informative=informative), run(direct(most(world), 0.8), world, seed)
        values.append(float(a.output.mean() / b.output.mean()))
        scores = [float(played.score([RIGHT] * QUESTIONS).mean()) for played in (a, b)]
        details.append({"accuracy": scores[0], "accuracy of the baseline": scores[1]})
    probes = "informative" if informative else "uninformative"
    return measured(
        f"tokens, {world}, {probes}",
        values,
        BELOW_ONE,
        claim=f"With hard questions {world} and probes {probes}, tokens with the probes are fewer (ratio)",
        baseline="the normal bundle for all",
        budget="the same questions; accuracy in the details",
        details=details,
    )


def accuracy(world: str, *, calibrated_on: str = "", seeds: int = 5) -> Evidence:
    """Accuracy, less that of the normal bundle for all."""
    values = []
    for seed in range(seeds):
        a = run(adaptive(calibrated_on or world, seed), world, seed)
        b = run(direct(most(world), 0.8), world, seed)
        values.append(float((a.score([RIGHT] * QUESTIONS) - b.score([RIGHT] * QUESTIONS)).mean()))
    region: Region = (-0.02, 1.0)
    how = (
        f"Calibrated where hard questions are {calibrated_on} and used where accuracy is {world}"
        if calibrated_on
        else (f"With hard questions {world}")
    )
    return measured(
        f"accuracy, {world}",
        values,
        region,
        claim=f"{how}, accuracy is within 2 points (difference)",
        baseline="the normal bundle for all",
        budget="the same questions, fewer tokens",
    )


def fixed(*, seeds: int = 5) -> Evidence:
    """Tokens by those of the hard bundle for all, which needs no probes."""
    values, details = [], []
    for seed in range(seeds):
        a, b = (
            run(adaptive("hopeless", seed), "hopeless", seed),
            run(direct(most("hopeless") // 2, 0.4), "hopeless", seed),
        )
        values.append(float(a.output.mean() / b.output.mean()))
        scores = [float(played.score([RIGHT] * QUESTIONS).mean()) for played in (a, b)]
        details.append({"accuracy": scores[0], "accuracy of the baseline": scores[1]})
    return measured(
        "tokens against fail-fast",
        values,
        BELOW_ONE,
        claim="With hard questions hopeless, tokens are fewer than with half the cap for all (ratio)",
        baseline="the hard bundle for all",
        budget="the same questions; accuracy in the details",
        details=details,
    )
