"""DORA (arXiv 2506.15707): more chance of a success than REBASE when duplicates say nothing about quality?

6 directions with success rates from Beta(0.5, 2) hold k_j near-duplicate paths each (k = 1 to 8, or 3 each), 16
rollouts in all. Scores are equal but for normal noise of 0.02 a direction, so what differs is how often a direction
comes. The chance that at least one rollout succeeds is computed exactly. Embeddings are the direction's axis plus
normal noise of 0.02. For the optimum, rates are drawn from the paper's Beta(kappa w, kappa (1 - w)).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from budgeteer.core.plan import F64, I64
from budgeteer.lab.evidence import ABOVE_ZERO, BELOW_ZERO, Evidence, Region, declare, measured
from budgeteer.strategies._dora import optimal_copies, uniqueness
from budgeteer.strategies.kit.steps import by_share, softmax

DIRECTIONS, ROLLOUTS, CASES = 6, 16, 200
Rule = Callable[[F64, F64], I64]
"""(scores [paths], embeddings [paths, d]) -> rollouts [paths]."""

DECLARED = declare(
    "simulation",
    claims=(
        "success, duplicates unrelated",
        "optimum, trust 0.3",
        "optimum, trust 30",
    ),
    controls=(
        "success, duplicates equal",
        "success, duplicates follow quality",
    ),
)


def experiments() -> list[Evidence]:
    """All of DORA's experiments."""
    return [
        gain("unrelated", ABOVE_ZERO),
        gain("equal", (-0.003, 0.003)),
        gain("follow quality", BELOW_ZERO),
        against_proportion(0.3),
        against_proportion(30.0),
    ]


def dora_rule(scores: F64, vectors: F64) -> I64:
    """Shares corrected by uniqueness."""
    share = softmax(scores, 0.1) * uniqueness(vectors, 0.01)
    return by_share(share, ROLLOUTS)


def rebase_rule(scores: F64, vectors: F64) -> I64:
    """Shares of single paths."""
    return by_share(softmax(scores, 0.1), ROLLOUTS)


def success(rule: Rule, duplicates: str, seed: int) -> float:
    """Mean chance of at least one success over CASES random instances."""
    rng = np.random.default_rng([seed, 71])
    total = 0.0
    for _ in range(CASES):
        rate = rng.beta(0.5, 2.0, DIRECTIONS)
        k = rng.integers(1, 9, DIRECTIONS) if duplicates == "unrelated" else np.full(DIRECTIONS, 3)
        if duplicates == "follow quality":
            k = 1 + np.argsort(np.argsort(rate)) * 7 // (DIRECTIONS - 1)
        direction = np.repeat(np.arange(DIRECTIONS), k)
        scores = rng.normal(0, 0.02, DIRECTIONS)[direction]
        vectors = np.eye(DIRECTIONS)[direction] + rng.normal(0, 0.02, (len(direction), DIRECTIONS))
        copies = np.bincount(direction, rule(scores, vectors), minlength=DIRECTIONS)
        total += 1 - float(np.prod((1 - rate) ** copies))
    return total / CASES


def gain(duplicates: str, region: Region, *, rule: Rule = dora_rule, seeds: int = 20) -> Evidence:
    """Chance of a success minus REBASE's. Where duplicates follow quality they carry information, and DORA loses."""
    text = {"unrelated": "above", "equal": "within 0.003 of", "follow quality": "below"}[duplicates]
    return measured(
        f"success, duplicates {duplicates}",
        [success(rule, duplicates, seed) - success(rebase_rule, duplicates, seed) for seed in range(seeds)],
        region,
        claim=f"When numbers of duplicates {'are ' * (duplicates != 'follow quality')}{duplicates}, the chance of a"
        f" success is {text} REBASE's (difference)",
        baseline="REBASE",
        budget=f"{ROLLOUTS} rollouts",
    )


def against_proportion(trust: float, *, seeds: int = 20) -> Evidence:
    """The optimum's chance of a success minus that of proportional shares, when the paper's model is the truth."""
    values = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 72])
        total = 0.0
        for _ in range(CASES):
            w = rng.dirichlet(np.ones(DIRECTIONS))
            rate = rng.beta(np.maximum(trust * w, 1e-9), np.maximum(trust * (1 - w), 1e-9), (50, DIRECTIONS))
            fail = [
                float(np.prod((1 - rate) ** units, axis=1).mean())
                for units in (optimal_copies(w, ROLLOUTS, trust), by_share(w, ROLLOUTS))
            ]
            total += fail[1] - fail[0]
        values.append(total / CASES)
    return measured(
        f"optimum, trust {trust:g}",
        values,
        ABOVE_ZERO,
        claim=f"With trust {trust:g} in the scores the optimal copies succeed more often than proportional ones"
        " (difference)",
        baseline="n w, by largest remainder",
        budget=f"{ROLLOUTS} rollouts",
    )
