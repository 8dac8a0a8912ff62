"""Right, tidy, and no longer than what prompts of this difficulty usually take (TRAAC, arXiv 2510.01581)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from budgeteer.core.column import Column, declare
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, right
from budgeteer.rl.reward.kit import band, pass_rate, sigmoid, weights
from budgeteer.rl.reward.protocol import Columns, Reward, of_terms

KEPT_LENGTH = declare(
    Column(
        "kept_length",
        "tokens that are left of the rollout after its trace was compressed",
        "a trainer that compresses traces gives it; without one it is the length",
        make=lambda rows: rows.length,
    ),
    "rollouts",
)
WINDOW = 10
"""Steps over which lengths are remembered."""


@dataclass(frozen=True, slots=True)
class Recent:
    """Lengths of the last steps, oldest first.

    Attributes:
        step: [m] number of the step, band: [m] difficulty, length: [m] tokens, of m rollouts.
        now: steps seen.
    """

    step: F64
    band: F64
    length: F64
    now: int


def traac(correct: float = 4.0, tidy: float = 1.0, length: float = 1.0, softness: float = 0.5) -> Reward:
    """``correct * c + tidy * [answer complete] + length * (1 - sigmoid((n - usual) / (softness * usual)))``, the last
    term for right rows only.

    n is what is left of the rollout after compression (the column ``kept_length``; the length where nobody compresses).
    Usual is the median over the rollouts of the last 10 steps of prompts of the same difficulty: easy from a pass rate
    of 2/3 on, medium from 1/3 on, else hard. In the first step, and for a difficulty not seen lately, the rows of this
    step stand in.

    Helps to shorten without asking hard prompts for the length of easy ones. The weight 4 makes the other terms small
    beside being right. The exact sigmoid could not be seen; this is a form of it. The paper removes the least attended
    steps of each trace before it scores it, for which this package has no part.

    Args:
        correct, tidy, length: weights, 0 or more.
        softness: how much longer than usual, as a share of it, moves the sigmoid by one, above 0.

    Raises:
        InvalidInput: a value outside these.

    >>> rows = Columns([1, 0], [20, 20], [0, 1], [99] * 2, [1] * 2, kept_length=[20, 20], answered=[20, -1])
    >>> traac().score(traac().init(), rows).tolist()
    [5.5, 0.0]
    """
    if not (weights(correct, tidy, length, softness) and softness > 0):
        raise InvalidInput(
            f"traac(correct={correct}, tidy={tidy}, length={length}, softness={softness}); give weights of 0 or more, "
            "and a softness above 0"
        )

    def terms(state: Recent, rows: Columns) -> dict[str, F64]:
        level, n = band(pass_rate(rows)), rows.column(KEPT_LENGTH, "traac")
        usual = np.ones(len(rows))
        for number in range(3):
            known, own = state.length[state.band == number], level == number
            if own.any():
                usual[own] = max(float(np.median(known if len(known) else n[own])), 1.0)
        short = np.where(right(rows.correct), 1 - sigmoid((n - usual) / (softness * usual)), 0.0)
        complete = rows.column("answered", "traac") >= 0
        return {
            "correct": np.asarray(correct * rows.correct, np.float64),
            "format": np.where(complete, tidy, 0.0),
            "length": np.asarray(length * short, np.float64),
        }

    def observe(state: Recent, rows: Columns) -> Recent:
        now = state.now + 1
        kept = state.step > now - WINDOW
        new = (np.full(len(rows), now), band(pass_rate(rows)), rows.column(KEPT_LENGTH, "traac"))
        old = (state.step, state.band, state.length)
        step, level, n = (np.concatenate([a[kept], b]).astype(np.float64) for a, b in zip(old, new, strict=True))
        return Recent(step, level, n, now)

    empty = Recent(np.zeros(0), np.zeros(0), np.zeros(0), 0)
    return of_terms(terms, lambda: empty, observe, needs=(KEPT_LENGTH, "answered"))
