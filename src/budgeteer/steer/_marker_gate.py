"""DUET's marker-gated stopping: end confident answers early, abort traces that are overdue.

Source: "DUET: Optimize Token-Budget Allocation for Reinforcement Learning with Verifiable Rewards", arXiv 2605.08441,
and its code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.core.steer import ABORT, FINISH, Action, Need, Rows, Snapshot, Steer


@dataclass(frozen=True, slots=True)
class GateState:
    """One entry a row: how often in a row it was confident, whether the abort was decided and the row kept,
    and the uniform numbers that decide."""

    run: I64
    kept: NDArray[np.bool_]
    abort_draw: F64
    skip: NDArray[np.bool_]


def marker_gate(
    first: float | F64,
    last: float | F64,
    *,
    threshold: float | F64 = 0.5,
    confident: int = 1,
    keep_abort: float = 0.05,
    keep_length: float = 0.05,
    every: int = 1,
) -> Steer:
    """Three zones by length t of a row, with the marker "answer complete".

    t < first: run freely. From first on, with the marker seen: FINISH once the next-token margin p(1st) - p(2nd)
    exceeded ``threshold`` at ``confident`` askings in a row; a row is exempt with probability ``keep_length``, so that
    every length stays reachable. At t >= last without the marker, decided once: ABORT with probability
    1 - keep_abort, else the row runs on to its natural end and carries weight 1 / keep_abort, which keeps any
    average over unanswered rows unbiased.

    Helps when many rows never answer or go on after answering; costs variance (weights of 1 / keep_abort) and
    removes rows that would have answered late.

    Args:
        first, last: lengths in tokens, one for all rows or one a row.
        threshold: of the margin, one for all rows or one a row.
        confident: askings in a row.
        keep_abort: in (0, 1]; 1 = never abort.
        keep_length: in [0, 1); 1 would never finish.
        every: asked after every so many tokens.

    >>> gate = marker_gate(4, 10, keep_abort=0.5, keep_length=0.0)
    >>> state = gate.init(Rows(("a",) * 4, np.full(4, 20), seed=1))
    >>> now = Snapshot.of([10] * 4, answered=[8, -1, -1, -1], margin=lambda: np.ones(4))
    >>> action, state = gate.step(state, now)
    >>> action.decision.tolist(), gate.kept_weight(state).tolist()
    ([1, 2, 2, 0], [1.0, 1.0, 1.0, 2.0])
    """
    if not 0 < keep_abort <= 1 or not 0 <= keep_length < 1:
        raise InvalidInput(f"keep_abort={keep_abort} must be in (0, 1], keep_length={keep_length} in [0, 1)")

    def init(rows: Rows) -> GateState:
        n = len(rows.keys)
        draws = np.random.Generator(np.random.Philox(key=[rows.seed, 1])).random((n, 2))
        return GateState(np.zeros(n, np.int64), np.zeros(n, np.bool_), draws[:, 0], draws[:, 1] < keep_length)

    soonest_first, soonest_last = (np.min(np.asarray(value, np.float64), initial=np.inf) for value in (first, last))

    def of(value: float | F64, row: I64) -> float | F64:
        return value[row] if isinstance(value, np.ndarray) else value

    def step(state: GateState, now: Snapshot) -> tuple[Action, GateState]:
        row, length = now.row, now.length
        decisions = np.zeros(len(row), np.int8)  # CONTINUE
        # most askings decide nothing, and few rows are in a zone: every line below looks only at those that may be
        longest = length.max() if len(row) else 0
        at = np.flatnonzero(now.answered >= 0) if longest >= soonest_first else row[:0]
        if len(at):
            mine = row[at]
            armed = (length[at] >= of(first, mine)) & ~state.kept[mine]
            if armed.any():
                sure = armed & (now.margin()[at] > of(threshold, mine))
                if confident > 1:
                    run = state.run.copy()
                    run[mine] = np.where(sure, run[mine] + 1, 0)
                    state, sure = replace(state, run=run), armed & (run[mine] >= confident)
                decisions[at[sure & ~state.skip[mine]]] = FINISH
        if longest >= soonest_last:
            at = np.flatnonzero(length >= of(last, row))
            at = at[(now.answered[at] < 0) & ~state.kept[row[at]]]
            if len(at):
                stays = state.abort_draw[row[at]] < keep_abort
                kept = state.kept.copy()
                kept[row[at[stays]]] = True
                state = replace(state, kept=kept)
                decisions[at[~stays]] = ABORT
        return Action(decisions), state

    def kept_weight(state: GateState) -> F64:
        return np.where(state.kept, 1 / keep_abort, 1.0)

    return Steer(init, step, frozenset({Need.MARKERS, Need.MARGIN}), every, kept_weight)
