"""C-GRPO: draw a prompt along a grid until its score is as small as calibration says a solved one's is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from budgeteer.allocate.kit.solve import Found, fill, lift
from budgeteer.core.allocator import Allocator
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, Items, Outcomes, Plan, right, whole

DELTA = (0.05, 0.95)
"""Least and most miscoverage level that calibration chooses."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """State: what calibration has seen, and the thresholds.

    Attributes:
        scores: [m, g] scores of the m prompts seen at each of the g numbers of rollouts.
        thresholds: [g] one a number of rollouts; empty while calibrating.
        age: steps since they were found.
    """

    scores: F64
    thresholds: F64
    age: int

    def __post_init__(self) -> None:
        if not len(self.scores):  # JSON does not tell how wide nothing is
            object.__setattr__(self, "scores", np.zeros((0, 0)))


def conformal(
    grid: Sequence[int] = (2, 4, 8, 16), calibration: int = 32, every: int = 50, margin: float = 0.05
) -> Allocator:
    """Draw each prompt up to 2, 4, 8, ... rollouts and stop once its score is at most the threshold of that number.

    The score of k rollouts with r right ones is ``1 - r / k``; a prompt stops at k if r > 0 and the score is at most
    ``q_k``. Calibration takes the scores of m prompts, each drawn to the end of the grid: q_k is the
    ``ceil((m + 1) (1 - delta))``-th smallest of them at k, with ``delta = 1 - solve rate + margin``, at least 0.05 and
    at most 0.95; the solve rate is the share of the m that had a success at the end of the grid. Call it once a round,
    a round a number of the grid, with the columns ``drawn`` and ``right`` and the tokens that are left. What does not
    fit the budget is left out at random. A step that cannot pay one prompt to the end of the grid draws the first
    number and calibrates nothing. ``Plan.value`` and ``gap`` are NaN.

    This is C-GRPO as the package trl-cgrpo has it, with its score ``pass_rate``. Its own default compares answers
    without a verifier, which an allocator does not see. There, calibration uses prompts that are held out, and what it
    draws is on no bill; here the first steps of the run are the calibration, and everything is paid for and learnt
    from.

    When it helps: solved prompts are cheap to recognise and many. When not: a prompt that is never right gets the whole
    grid, which is most where nothing is learnt.

    Args:
        grid: rising numbers of rollouts.
        calibration: m, prompts of a calibration.
        every: steps between calibrations; 0 = one at the start.
        margin: added to the miss rate.

    Raises:
        InvalidInput: a grid that does not rise from 1 or more, or a number out of its range.

    >>> items = Items(("a", "b"), cost=np.full(2, 10.0), drawn=np.array([2, 2]), right=np.array([0, 2]))
    >>> state = Calibration(np.zeros((0, 2)), np.array([0.5, 0.5]), 0)
    >>> conformal((2, 4)).allocate(1000, items, state, rng=np.random.default_rng(0)).units
    array([2, 0])
    """
    steps = np.array([whole("grid", k) for k in grid], np.int64)
    if not len(steps) or steps[0] < 1 or np.any(np.diff(steps) <= 0):
        raise InvalidInput(f"conformal(grid={tuple(grid)}); give rising numbers of rollouts, 1 or more")
    if whole("calibration", calibration) < 1 or whole("every", every) < 0 or not 0 <= margin < 1:
        raise InvalidInput(
            f"conformal got calibration={calibration}, every={every}, margin={margin}; give 1 or more prompts, 0 or "
            "more steps and a margin in [0, 1)"
        )
    last = int(steps[-1])

    def next_of(drawn: I64, good: I64, thresholds: F64) -> I64:
        """[n] rollouts that each item is to have next; what it has, if it is done."""
        if not len(thresholds):
            return np.where(drawn == 0, last, drawn)
        at = np.searchsorted(steps, drawn, side="right") - 1  # the last number of the grid that was reached
        limit = np.append(thresholds, -1.0)[at]
        solved = (good > 0) & (1 - good / np.maximum(drawn, 1) <= limit)
        after = np.append(steps, last)[at + 1]
        return np.where((drawn > 0) & solved, drawn, np.maximum(after, drawn))

    def allocate(budget: int, items: Items, state: Calibration, *, rng: np.random.Generator) -> Plan:
        def rule(budget: int, items: Items, rng: np.random.Generator) -> Found:
            nothing = np.zeros(len(items), np.int64)
            drawn = nothing if items.drawn is None else items.drawn
            good = nothing if items.right is None else items.right
            more = next_of(drawn, good, state.thresholds) - drawn
            units, left, order = nothing, float(budget), rng.permutation(len(items))
            for size in np.unique(more[more > 0]).tolist():
                units = units + fill(order[more[order] == size], size, items.cost, left)
                left = budget - float(units @ items.cost)
            if not units.any() and not drawn.any():  # not even one prompt to the end of the grid
                units = fill(order, int(steps[0]), items.cost, budget)
            return Found(units)

        return lift(rule).allocate(budget, items, (), rng=rng)

    def observe(state: Calibration, outcomes: Outcomes) -> Calibration:
        age = state.age + 1
        if len(state.thresholds):
            due = every and age >= every
            return Calibration(state.scores[:0], state.thresholds[:0], 0) if due else _aged(state, age)
        good: dict[str, list[bool]] = {}
        for key, solved in zip(outcomes.keys, right(outcomes.reward).tolist(), strict=True):
            good.setdefault(key, []).append(solved)
        seen = [np.cumsum(rows)[steps - 1] / steps for rows in good.values() if len(rows) >= last]
        scores = np.concatenate([state.scores.reshape(-1, len(steps)), 1 - np.array(seen).reshape(-1, len(steps))])
        ready = len(scores) >= calibration
        return Calibration(scores, thresholds_of(scores, margin) if ready else state.thresholds, 0)

    empty = Calibration(np.zeros((0, len(steps))), np.zeros(0), 0)
    return Allocator(lambda items: empty, allocate, observe)


def thresholds_of(scores: F64, margin: float) -> F64:
    """[g] thresholds of scores [m, g], m >= 1; the last column decides the miscoverage level.

    >>> thresholds_of(np.array([[0.5, 0.25], [1.0, 0.75], [1.0, 1.0]]), 0.2)
    array([1.  , 0.75])
    """
    solve_rate = float((scores[:, -1] < 1 - 1e-9).mean())
    delta = min(max(1 - solve_rate + margin, DELTA[0]), DELTA[1])
    m = len(scores)
    index = min(max(math.ceil((m + 1) * (1 - delta)), 1), m) - 1
    found: F64 = np.sort(scores, axis=0)[index]
    return found


def _aged(state: Calibration, age: int) -> Calibration:
    return Calibration(state.scores, state.thresholds, age)
