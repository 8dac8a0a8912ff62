"""No longer than what prompts of this difficulty usually take (TRAAC, arXiv 2510.01581)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.column import Column, declare
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, right
from budgeteer.rl.reward.kit import band, group_mean, sigmoid, weights
from budgeteer.rl.reward.protocol import Columns, Reward, of_terms

BRANCHED = declare(
    Column(
        "branched",
        "1 for a row that goes on from another rollout of the same step, such as one whose trace was compressed",
        "a trainer whose recipe has a branch gives it; without one no row does, and it is 0",
        whole=True,
        most=1,
        make=lambda rows: np.zeros(len(rows), np.int64),
    ),
    "rollouts",
)
EASY_FROM, MEDIUM_FROM = 0.8, 0.3
"""Pass rates from which a prompt is easy, and medium, as in the paper's code."""
WINDOW = 10
"""Steps whose lengths count, this one included."""


@dataclass(frozen=True, slots=True)
class Recent:
    """Lengths of right rows of the steps before this one, oldest first.

    Attributes:
        step: [m] number of the step, band: [m] difficulty, length: [m] tokens, of m rollouts.
        now: steps seen.
    """

    step: F64
    band: F64
    length: F64
    now: int


def difficulty(correct: F64, group: I64, counts: NDArray[np.bool_] | None = None) -> I64:
    """[n] difficulty of each row's prompt by its share of right rows, of those [n] that count."""
    return band(group_mean(right(correct) * 1.0, group, counts), EASY_FROM, MEDIUM_FROM)


def brevity(n: I64, known: F64, softness: float) -> F64:
    """[m] how short lengths [m] are beside the known ones, in [0, 1]: the larger of a line and a sigmoid.

    >>> brevity(np.array([10, 25, 30]), np.array([10.0, 20.0, 30.0]), 0.1).round(3).tolist()
    [1.0, 0.25, 0.007]
    """
    low, high, usual = float(known.min()), float(known.max()), max(float(np.median(known)), 1.0)
    line = np.clip((high - n) / max(high - low, 1e-6), 0.0, 1.0)
    smooth = sigmoid(np.asarray((usual - n) / (softness * usual), np.float64))
    return np.asarray(np.maximum(line, smooth), np.float64)


def traac(correct: float = 4.0, tidy: float = 1.0, length: float = 1.0, softness: float = 0.1) -> Reward:
    """``correct * c + tidy * [answer complete] + length * s``, with s for right rows only: the larger of
    ``(longest - n) / (longest - shortest)``, within 0 and 1, and ``sigmoid((usual - n) / (softness * usual))``.

    n is the row's length; shortest, longest and usual (the median) are of the right rows of this step and the nine
    before it, of prompts of the same difficulty: easy from a pass rate of 0.8 on, medium from 0.3 on, else hard. Rows
    that go on from a compressed trace (recipe ``traac``) have the length that is left; they do not count in the rate.

    Helps to shorten without asking hard prompts for the length of easy ones. The weight 4 makes the other terms small
    beside being right. The length term and the rates are those of the paper's code, where the format is two terms.

    Args:
        correct, tidy, length: weights, 0 or more.
        softness: how much longer than usual, as a share of it, moves the sigmoid by one, above 0.

    Raises:
        InvalidInput: a value outside these.

    >>> rows = Columns([1, 0], [20, 20], [0, 1], [99] * 2, [1] * 2, branched=[0, 0], answered=[20, -1])
    >>> traac().score(traac().init(), rows).tolist()
    [5.5, 0.0]
    """
    if not (weights(correct, tidy, length, softness) and softness > 0):
        raise InvalidInput(
            f"traac(correct={correct}, tidy={tidy}, length={length}, softness={softness}); give weights of 0 to 1e6, "
            "and a softness above 0"
        )

    def levels(rows: Columns) -> I64:
        return difficulty(rows.correct, rows.group, rows.column(BRANCHED, "traac") == 0)

    def terms(state: Recent, rows: Columns) -> dict[str, F64]:
        level, good, short = levels(rows), right(rows.correct), np.zeros(len(rows))
        for number in np.unique(level[good]).tolist():
            own = good & (level == number)
            known = np.concatenate([state.length[state.band == number], rows.length[own]])
            short[own] = brevity(rows.length[own], known, softness)
        complete = rows.column("answered", "traac") >= 0
        return {
            "correct": np.asarray(correct * rows.correct, np.float64),
            "format": np.where(complete, tidy, 0.0),
            "length": np.asarray(length * short, np.float64),
        }

    def observe(state: Recent, rows: Columns) -> Recent:
        now, good = state.now + 1, right(rows.correct)
        kept = state.step > now - (WINDOW - 1)
        new = (np.full(int(good.sum()), now), levels(rows)[good], rows.length[good])
        old = (state.step, state.band, state.length)
        step, level, n = (np.concatenate([a[kept], b]).astype(np.float64) for a, b in zip(old, new, strict=True))
        return Recent(step, level, n, now)

    empty = Recent(np.zeros(0), np.zeros(0), np.zeros(0), 0)
    return of_terms(terms, lambda: empty, observe, needs=(BRANCHED, "answered"))
