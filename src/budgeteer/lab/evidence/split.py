"""The split of one budget over many questions: more right answers than the same number of samples for each?

100 questions as in :mod:`budgeteer.lab.evidence.adaptive_vote`: chances from Beta(1.2, 0.8), wrong answers share the
rest geometrically, 20 to 60 tokens a trace; alike = all chances 0.45. Budgets are 2 to 8 samples a question, in
output tokens, hard on both sides. A prompt is one token here, so what rounds of requests pay for reading long prompts
again is not seen; benchmarks/search.py counts it.
"""

from __future__ import annotations

import asyncio
import random
from functools import lru_cache

import numpy as np

from budgeteer.allocate import neyman, uniform
from budgeteer.core.allocator import Allocator
from budgeteer.lab.evidence import ABOVE_ZERO, Evidence, Region, declare, measured
from budgeteer.lab.simulated import Simulated, answers_of, tasks_of
from budgeteer.strategies import self_consistency, split
from budgeteer.strategies._split import Show, agreement, gains

QUESTIONS, TOKENS = 100, 40
ONE_REQUEST = "one request for each question"

DECLARED = declare(
    "simulation",
    claims=(
        "accuracy, uniform, 4 samples",
        "accuracy, uniform, 8 samples",
        "accuracy, neyman, 8 samples",
        "accuracy, uniform, 8 samples, alike",
        "accuracy, one request for each question, 4 samples",
        "accuracy, one request for each question, 8 samples",
    ),
    controls=("accuracy, uniform, 2 samples",),
)


def experiments() -> list[Evidence]:
    """All of the split's experiments."""
    return [
        gain("uniform", 4, ABOVE_ZERO),
        gain("uniform", 8, ABOVE_ZERO),
        gain("neyman", 8, ABOVE_ZERO),
        gain("uniform", 8, ABOVE_ZERO, alike=True),
        gain("uniform", 2, (-0.03, 0.03)),
        *(gain(ONE_REQUEST, samples, ABOVE_ZERO) for samples in (4, 8)),
    ]


def model(seed: int, alike: bool) -> Simulated:
    """Question i is its number; the right answer is R."""
    rate = np.random.default_rng([seed, 81]).beta(1.2, 0.8, QUESTIONS).tolist()
    tail = [2.0**-j for j in range(1, 9)]

    def write(prompt: str, rng: random.Random) -> str:
        p = 0.45 if alike else rate[int(prompt)]
        answer = "R" if rng.random() < p else str(rng.choices(range(8), tail)[0])
        return "x " * rng.randrange(20, 60) + f"#{answer}\n"

    return Simulated(write)


METHODS: dict[str, tuple[Allocator | None, Show]] = {
    "gains": (None, gains),
    "uniform": (uniform(), agreement),
    "neyman": (neyman(), agreement),
}


@lru_cache
def accuracy(name: str, samples: int, seed: int, alike: bool) -> float:
    """Share of right answers for ``samples`` times TOKENS tokens a question. Uniform decides no question early.

    One request is self-consistency with as many samples, which takes 4 % more tokens.
    """
    if name == ONE_REQUEST:
        tasks = tasks_of(model(seed, alike), map(str, range(QUESTIONS)), seed)
        voted = answers_of(self_consistency(samples, max_tokens=64), tasks)
        return float(np.mean([answer.answer == "R" for answer in voted]))
    allocator, show = METHODS[name]
    tasks = tasks_of(model(seed, alike), map(str, range(QUESTIONS)), seed, budget=samples * TOKENS * QUESTIONS)

    async def every() -> float:
        risk = 0.0 if name == "uniform" else 0.01
        answers = [a async for _, a in split(tasks, allocator, show=show, risk=risk, max_tokens=64)]
        return float(np.mean([answer.answer == "R" for answer in answers]))

    return asyncio.run(every())


def gain(
    other: str, samples: int, region: Region, *, ours: str = "gains", alike: bool = False, seeds: int = 8
) -> Evidence:
    """Accuracy minus another allocator's. With 2 samples each there is nothing to allocate: the null.

    Questions that are alike are no null: their votes differ, and with them what another sample is worth.
    """
    values = [accuracy(ours, samples, seed, alike) - accuracy(other, samples, seed, alike) for seed in range(seeds)]
    return measured(
        f"accuracy, {other}, {samples} samples" + ", alike" * alike,
        values,
        region,
        claim=f"{'Questions alike, ' * alike}{samples} samples a question: the accuracy is"
        f" {'within 0.03 of' if samples == 2 else 'above'} that of {other} (difference)",
        baseline="self-consistency in one request" if other == ONE_REQUEST else f"split with {other}",
        budget=f"{samples * TOKENS} output tokens a question on average, in one total",
    )
