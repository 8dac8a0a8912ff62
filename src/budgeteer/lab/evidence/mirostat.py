"""Mirostat: does the controller hold the mean surprise of a text at its target, and only the controller?

A made-up language of 3,000 words: at each step a new distribution by Zipf's law of an exponent drawn from 0.9 to 1.4,
with noise; texts of 300 words at temperature 1. *Control*: a rate of 0, so that nothing is fed back.
"""

from __future__ import annotations

import numpy as np

from budgeteer.core.plan import F64
from budgeteer.lab.evidence import Evidence, Region, declare, measured

WORDS, STEPS, SEEDS = 3000, 300, 20

DECLARED = declare(
    "simulation",
    claims=(
        "version 1, target 2.5",
        "version 1, target 4.0",
        "version 1, target 5.5",
        "version 2, target 2.5",
        "version 2, target 4.0",
        "version 2, target 5.5",
    ),
    controls=(
        "version 1, target 4.0, no feedback (control)",
        "version 2, target 4.0, no feedback (control)",
    ),
)


def experiments() -> list[Evidence]:
    """Both versions at three targets, and the control."""
    rows = [held(version, target, 1.0) for version in (1, 2) for target in (2.5, 4.0, 5.5)]
    return [*rows, held(1, 4.0, 0.0), held(2, 4.0, 0.0)]


def surprise(version: int, target: float, rate: float) -> F64:
    """[SEEDS] mean surprise of a text, bits a word."""
    import torch

    from budgeteer.core.steer import Rows, Snapshot
    from budgeteer.steer import mirostat

    steer = mirostat(target, rate=rate, version=version)
    state = steer.init(Rows(tuple(map(str, range(SEEDS))), np.full(SEEDS, STEPS), 0))
    word = np.full(SEEDS, -1)
    rng, total = np.random.default_rng(22), np.zeros(SEEDS)
    for length in range(STEPS):
        zipf = -rng.uniform(0.9, 1.4, (SEEDS, 1)) * np.log(np.arange(1, WORDS + 1))
        logits = torch.from_numpy(zipf + 0.2 * rng.normal(size=(SEEDS, WORDS)))
        now = Snapshot.of(np.full(SEEDS, length), last=word, logits=logits)
        action, state = steer.step(state, now)
        cdf = action.logits.double().softmax(-1).cumsum(-1).numpy()
        word = (cdf < rng.random((SEEDS, 1)) * cdf[:, -1:]).sum(1)
        total -= torch.log_softmax(logits, -1).numpy()[np.arange(SEEDS), word] / np.log(2)
    return np.asarray(total / STEPS)


def held(version: int, target: float, rate: float) -> Evidence:
    """Distance of the mean surprise from the target."""
    region: Region = (-0.2, 0.2) if rate else (0.2, np.inf)
    away = surprise(version, target, rate) - target
    values = away if rate else np.abs(away)
    control = "" if rate else ", no feedback (control)"
    effect = "is within 0.2 bits of the target" if rate else "is more than 0.2 bits away"
    return measured(
        f"version {version}, target {target}{control}",
        values,
        region,
        claim=f"Version {version}{control}: the mean surprise {effect} of {target} bits (distance)",
        baseline="the target",
        budget=f"{STEPS} words a text",
    )
