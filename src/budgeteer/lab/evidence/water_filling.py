"""Water-filling over error curves c b^-alpha, against uniform and a cosine schedule (arXiv 2505.16122).

10 parts of one problem with c from a log-normal (log-std 1) and alpha from 0.3 to 1.2; c falls with the part's number,
rises with it, or neither. 2,000 tokens. The cosine schedule gives part j the share ``0.5 (1 + cos(pi j / 9)) + 0.1``.
The error is the exact sum. "Guessed": c and alpha are seen with a log-error of 0.5.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from budgeteer.allocate import uniform, water_filling
from budgeteer.core.allocator import Allocator
from budgeteer.core.plan import F64, Items
from budgeteer.lab.evidence import BELOW_ONE, Evidence, declare, measured

PARTS, TOKENS = 10, 2000
Order = Literal["falling", "rising", "random"]

DECLARED = declare(
    "simulation",
    claims=(
        "uniform, known",
        "uniform, guessed",
        "cosine, known",
        "cosine, guessed",
        "schedule, falling",
    ),
    must_fail=("schedule, rising",),
)


def experiments() -> list[Evidence]:
    """Against uniform and the schedule, with known curves and guessed ones."""
    return [
        error("uniform", "random"),
        error("uniform", "random", guessed=True),
        error("cosine", "falling"),
        error("cosine", "falling", guessed=True),
        schedule("falling"),
        schedule("rising"),
    ]


def problem(order: Order, seed: int) -> tuple[F64, F64, np.random.Generator]:
    """Scale and decay of the parts."""
    rng = np.random.default_rng([seed, 21])
    scale = np.sort(np.exp(rng.standard_normal(PARTS)))
    scale = {"falling": scale[::-1], "rising": scale, "random": rng.permutation(scale)}[order]
    return scale, rng.uniform(0.3, 1.2, PARTS), rng


def left(units: F64, scale: F64, decay: F64) -> float:
    """Sum of the errors."""
    return float(np.sum(scale * np.maximum(units, 1.0) ** -decay))


def cosine() -> F64:
    """Tokens of the cosine schedule."""
    share = 0.5 * (1 + np.cos(np.pi * np.arange(PARTS) / (PARTS - 1))) + 0.1
    return np.asarray(np.floor(TOKENS * share / share.sum()), dtype=np.float64)


def error(
    against: str, order: Order, *, guessed: bool = False, allocator: Allocator | None = None, seeds: int = 60
) -> Evidence:
    """Ratio of the errors left."""
    values = []
    for seed in range(seeds):
        scale, decay, rng = problem(order, seed)
        noise = 0.5 * rng.standard_normal((2, PARTS)) if guessed else np.zeros((2, PARTS))
        seen = Items(
            tuple(f"p{i}" for i in range(PARTS)),
            np.ones(PARTS),
            scale=scale * np.exp(noise[0]),
            decay=decay * np.exp(noise[1]),
        )
        ours = (allocator or water_filling()).allocate(TOKENS, seen, (), rng=rng).units.astype(np.float64)
        base = (
            cosine() if against == "cosine" else uniform().allocate(TOKENS, seen, (), rng=rng).units.astype(np.float64)
        )
        values.append(left(ours, scale, decay) / left(base, scale, decay))
    how = "guessed" if guessed else "known"
    return measured(
        f"{against}, {how}",
        values,
        BELOW_ONE,
        claim=f"With {how} curves, c in {order} order, the error is below that of {against} (ratio)",
        baseline=against,
        budget=f"{TOKENS:,} tokens",
    )


def schedule(order: Order, *, seeds: int = 60) -> Evidence:
    """Ratio of the schedule's error to uniform's: what a fixed schedule is worth without knowing the curves."""
    values = []
    for seed in range(seeds):
        scale, decay, _ = problem(order, seed)
        values.append(left(cosine(), scale, decay) / left(np.full(PARTS, TOKENS / PARTS), scale, decay))
    return measured(
        f"schedule, {order}",
        values,
        BELOW_ONE,
        claim=f"With c in {order} order, the cosine schedule's error is below uniform's (ratio)",
        baseline="uniform",
        budget=f"{TOKENS:,} tokens",
    )
