"""Search over combinations of pieces (CORAG, arXiv 2411.00744): what is it worth against simpler choices?

10 pieces of 1 to 5 tokens, worth a_i ~ U(0, 1) alone; a pair loses s_ij ~ U(0, 0.6) of it (they repeat or distract each
other), and each token costs 0.05. Budget: 15 tokens. The value of all combinations is known, so that each row is the
value of a choice as a share of the best one's. The tree search stops after 200 scored combinations; greedy choice by
what is gained (``marginal``) needs 50 at most.
"""

from __future__ import annotations

import itertools

import numpy as np

from budgeteer.context._carrot import Choice, search
from budgeteer.core.plan import F64
from budgeteer.lab.evidence import ABOVE_ZERO, Evidence, declare, measured

PIECES, BUDGET, SEEDS = 10, 15, 40
SCORED = 200
DECLARED = declare(
    "simulation",
    claims=("search minus fill", "search minus marginal"),
    controls=("search minus the best, nothing shared",),
)


def experiments() -> list[Evidence]:
    """All of the search's experiments."""
    return [against("fill"), against("marginal"), additive()]


class World:
    """Pieces whose values are known."""

    def __init__(self, seed: int, shared: float, price: float) -> None:
        rng = np.random.default_rng([seed, 45])
        self.alone: F64 = rng.random(PIECES)
        self.pairs: F64 = shared * np.triu(rng.random((PIECES, PIECES)), 1)
        self.tokens = rng.integers(1, 6, PIECES)
        self.price = price

    def value(self, choice: Choice) -> float:
        """What a combination is worth; nothing is worth 0."""
        at = list(choice)
        lost = self.pairs[np.ix_(at, at)].sum() + self.price * self.tokens[at].sum()
        return float(self.alone[at].sum() - lost)

    def cost(self, choice: Choice) -> int:
        """Tokens of a combination."""
        return int(self.tokens[list(choice)].sum())

    def best(self) -> float:
        """The value of the best combination."""
        every = (c for k in range(PIECES + 1) for c in itertools.combinations(range(PIECES), k))
        return max(self.value(choice) for choice in every if self.cost(choice) <= BUDGET)

    def searched(self) -> float:
        """By tree search, up to SCORED combinations."""
        left = SCORED
        for iterations in range(60, 0, -1):
            scored = search(
                range(PIECES), self.cost, lambda found: [self.value(c) for c in found], BUDGET, iterations, 0.5, 0.0
            )
            if len(scored) <= left:
                return max(0.0, *scored.values())
        return 0.0

    def filled(self) -> float:
        """The pieces of the highest values alone, as many as fit."""
        kept: Choice = ()
        for piece in np.argsort(-self.alone).tolist():
            more = tuple(sorted((*kept, piece)))
            kept = more if self.cost(more) <= BUDGET else kept
        return self.value(kept)

    def marginal(self) -> float:
        """The piece that gains most, until none gains."""
        kept: Choice = ()
        while True:
            more = [tuple(sorted((*kept, piece))) for piece in range(PIECES) if piece not in kept]
            fits = [choice for choice in more if self.cost(choice) <= BUDGET]
            found = max(fits, key=self.value, default=kept)
            if self.value(found) <= self.value(kept):
                return self.value(kept)
            kept = found


def against(rival: str) -> Evidence:
    """The search's value minus a rival's, as a share of the best."""
    values = []
    for seed in range(SEEDS):
        world = World(seed, 0.6, 0.05)
        other = world.filled() if rival == "fill" else world.marginal()
        values.append((world.searched() - other) / world.best())
    return measured(
        f"search minus {rival}",
        values,
        ABOVE_ZERO,
        claim=f"Value of the tree search minus {'filling up' if rival == 'fill' else 'greedy gain'}, of the best value",
        baseline="the highest values alone, as many as fit" if rival == "fill" else "greedy gain, 50 scored at most",
        budget=f"{BUDGET} tokens, {SCORED} scored combinations",
    )


def additive() -> Evidence:
    """With values that add up, the search minus the best, as a share of it: at most 0."""
    values = []
    for seed in range(SEEDS):
        world = World(seed, 0.0, 0.0)
        values.append(world.searched() / world.best() - 1)
    return measured(
        "search minus the best, nothing shared",
        values,
        (-0.2, 0.0),
        claim="With values that add up, the tree search's value minus the knapsack's optimum, of the optimum",
        baseline="all combinations",
        budget=f"{BUDGET} tokens, {SCORED} scored combinations",
    )
