"""Stopping answered rows: tokens saved at the same reward, if the policy goes on after its answer.

512 rows answer after a geometric number of tokens (mean 60) and then go on for a geometric number (mean 30), capped
at 200. The reward is drawn once an answer is complete; a row whose answer is cut has none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.plan import F64, I64
from budgeteer.core.steer import CONTINUE, Rows, Snapshot, Steer
from budgeteer.lab.evidence import BELOW_ONE, Evidence, Region, declare, measured
from budgeteer.steer import answered

ROWS, CAP = 512, 200

DECLARED = declare(
    "simulation",
    claims=(
        "tokens",
        "reward",
        "overshoot, every 8",
    ),
    controls=("tokens, no tail",),
)


def experiments() -> list[Evidence]:
    """Tokens with and without a tail, and the reward."""
    return [tokens(tail=30), tokens(tail=0), reward(), overshoot(every=8)]


def no_margin() -> NDArray[np.float32]:
    """The steer decides without margins; one that asks for them fails here."""
    raise AssertionError("answered() asked for a margin")


def play(steer: Steer, tail: int, seed: int) -> tuple[I64, I64, F64]:
    """Tokens a row with and without the steer, and the difference of its reward."""
    rng = np.random.default_rng([seed, 15])
    answer = rng.geometric(1 / 60, ROWS)
    full = np.minimum(answer + (rng.geometric(1 / tail, ROWS) if tail else 0), CAP)
    right = rng.integers(0, 2, ROWS)
    spent, running = full.copy(), np.arange(ROWS)
    state = steer.init(Rows(tuple(map(str, range(ROWS))), np.full(ROWS, CAP), seed))
    for length in range(steer.every, CAP + 1, steer.every):
        running = running[full[running] > length]
        there = np.where(answer[running] <= length, answer[running], -1)
        lengths = np.full(len(running), length)
        now = Snapshot.of(lengths, row=running, closed=there, answered=there, margin=no_margin)
        action, state = steer.step(state, now)
        decisions = action.decision
        assert decisions is not None
        spent[running[decisions != CONTINUE]] = length
        running = running[decisions == CONTINUE]
    rewards = [np.where(answer <= length, right, 0) for length in (spent, full)]
    return spent, full, (rewards[0] - rewards[1]).astype(np.float64)


def tokens(*, tail: int, steer: Steer | None = None, seeds: int = 20) -> Evidence:
    """Ratio of tokens to those of rows that run to their end."""
    values = []
    for seed in range(seeds):
        spent, full, _ = play(steer or answered(), tail, seed)
        values.append(float(spent.sum() / full.sum()))
    region: Region = BELOW_ONE if tail else (0.999, 1.001)
    return measured(
        "tokens" if tail else "tokens, no tail",
        values,
        region,
        claim="The tokens are fewer (ratio)" if tail else "Without a tail, the tokens are the same (ratio)",
        baseline="rows run to their end",
        budget="the same rows",
    )


def reward(*, steer: Steer | None = None, seeds: int = 20) -> Evidence:
    """Largest change of any row's reward."""
    values = [float(np.abs(play(steer or answered(), 30, seed)[2]).max()) for seed in range(seeds)]
    return measured(
        "reward",
        values,
        (-1e-9, 1e-9),
        claim="No row's reward changes (largest change)",
        baseline="rows run to their end",
        budget="the same rows",
    )


def overshoot(*, every: int, seeds: int = 20) -> Evidence:
    """Most tokens that a row runs on after its answer when the steer looks every so many tokens."""
    values = []
    for seed in range(seeds):
        spent, _, _ = play(answered(every), 30, seed)
        exact, _, _ = play(answered(), 30, seed)
        values.append(float((spent - exact).max()))
    return measured(
        f"overshoot, every {every}",
        values,
        (-1.0, every - 0.5),
        claim=f"Polled every {every} tokens, a row runs on for at most {every - 1} tokens (largest overshoot)",
        baseline="polled every token",
        budget="the same rows",
    )
