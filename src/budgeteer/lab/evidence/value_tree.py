"""Value tree (arXiv 2603.12634): does V ** (1 / r) beat fixed exponents at the same number of expansions?

A question needs 4 steps forward. A step goes forward (f) with chance 0.45, into a dead end (d) with a chance q, else
nowhere (n, the words differ); after a dead end nothing helps any more. The critic rates the last step 0.4, -0.4 or 0
plus normal noise of 0.25; it sees a dead end as such only half of the time. 24 expansions. Fixed exponent 1 is the
tree with an endless horizon, greedy is the tree with a horizon of one expansion. REBASE has the same critic, summed
over a path's steps, and no more expansions: 2 paths of 12 steps. 30 questions a seed.
"""

from __future__ import annotations

import random
import zlib
from functools import lru_cache

import numpy as np

from budgeteer.lab.evidence import ABOVE_ZERO, Evidence, Region, declare, measured
from budgeteer.lab.simulated import Simulated, answers_of, tasks_of
from budgeteer.strategies import rebase, value_tree
from budgeteer.strategies.scorer import Scorer, programmatic

QUESTIONS, LEVELS, EXPANSIONS = 30, 4, 24
DEAD = (0.1, 0.25, 0.4)
HORIZONS = {"exponent 1": 10**9, "greedy": 1}
PATHS = 2

DECLARED = declare(
    "simulation",
    claims=(
        "solved, exponent 1, average over dead ends",
        "solved, greedy, average over dead ends",
        "solved, greedy, dead ends 0.1",
        "solved, greedy, dead ends 0.25",
        "solved, greedy, dead ends 0.4",
        "solved, REBASE, average over dead ends",
    ),
    controls=("solved, exponent 1, dead ends 0.25, blind critic",),
)


def experiments() -> list[Evidence]:
    """All of the value tree's experiments."""
    return [
        gain("exponent 1", DEAD, ABOVE_ZERO),
        gain("greedy", DEAD, ABOVE_ZERO),
        *(gain("greedy", (dead,), ABOVE_ZERO) for dead in DEAD),
        gain("exponent 1", (0.25,), (-0.1, 0.1), blind=True),
        gain("REBASE", DEAD, ABOVE_ZERO),
    ]


def model(dead: float) -> Simulated:
    """Steps until LEVELS of them went forward; then the answer, right unless a step was a dead end."""

    def write(prompt: str, rng: random.Random) -> str:
        done = prompt.partition(" ")[2]
        if done.count("f") >= LEVELS:
            return f"#{'W' if 'd' in done else 'R'}\n"
        u = rng.random()
        # beyond a dead end no step goes forward
        kind = "d" if u < dead else "f" if u < dead + 0.45 and "d" not in done else "n"
        return f"{kind}{rng.randrange(10**6)};"

    return Simulated(write)


def rating(question: str, trace: str, blind: bool) -> float:
    """The rating of the last step. Noise belongs to the trace, so that the same step is always rated the same; blind =
    noise alone."""
    noise = random.Random(zlib.crc32(f"{question} {trace}".encode()))
    step = trace.split(";")[-2][0] if ";" in trace and "#" not in trace else "n"
    true = {"f": 0.4, "d": -0.4 if noise.random() < 0.5 else 0.0, "n": 0.0}[step]
    return (0.0 if blind else true) + noise.gauss(0, 0.25)


def critic(blind: bool) -> Scorer:
    """Rates the last step."""
    return programmatic(lambda question, trace: rating(question, trace, blind))


def summed(blind: bool) -> Scorer:
    """Sum of the critic's ratings of a path's steps."""

    def rate(question: str, trace: str) -> float:
        steps = trace.split(";")
        return sum(rating(question, ";".join(steps[:i]) + ";", blind) for i in range(1, len(steps)))

    return programmatic(rate)


@lru_cache
def solved(dead: float, horizon: int | None, seed: int, blind: bool) -> float:
    """Share of questions whose answer is right; without a horizon, REBASE's."""
    if horizon is None:
        strategy = rebase(summed(blind), PATHS, depth=EXPANSIONS // PATHS, step=";", step_tokens=4)
    else:
        strategy = value_tree(critic(blind), EXPANSIONS, answers=1, horizon=horizon, step=";", step_tokens=4)
    tasks = tasks_of(model(dead), (f"{seed}-{i}" for i in range(QUESTIONS)), seed)
    return float(np.mean([answer.answer == "R" for answer in answers_of(strategy, tasks)]))


def gain(
    other: str,
    dead: tuple[float, ...],
    region: Region,
    *,
    blind: bool = False,
    horizon: int = EXPANSIONS,
    seeds: int = 6,
) -> Evidence:
    """Share solved minus that of a fixed exponent, averaged over the rates of dead ends. A blind critic is the null."""
    values = [
        float(np.mean([solved(q, horizon, seed, blind) - solved(q, HORIZONS.get(other), seed, blind) for q in dead]))
        for seed in range(seeds)
    ]
    where = f"dead ends {dead[0]}" if len(dead) == 1 else "average over dead ends"
    return measured(
        f"solved, {other}, {where}" + ", blind critic" * blind,
        values,
        region,
        claim=f"{where[0].upper()}{where[1:]}{', with a critic of noise alone' * blind}: the share solved is"
        f" {'within 0.1 of' if blind else 'above'} that of {other} (difference)",
        baseline=other,
        budget=f"{EXPANSIONS} expansions",
    )
