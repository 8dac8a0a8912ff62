"""The rules of stoppers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from budgeteer.check._common import CheckFailed, same
from budgeteer.core.plan import I64
from budgeteer.core.stopper import ABORT, CONTINUE, FINISH, Event, Rows, Stopper


def check_stopper(stopper: Stopper, *, rows: Sequence[int] = (0, 1, 33), seed: int = 0) -> None:
    """Run a stopper over simulated rows and raise :class:`CheckFailed` at the first broken rule.

    Rules: ``every`` >= 1; one int8 decision in {CONTINUE, FINISH, ABORT} for each row of the event; the same rows and
    events give the same decisions; a step leaves the state it was given untouched; no rows and empty events work;
    ``kept_weight`` gives one finite weight >= 0 a row.

    Args:
        stopper: the stopper to check.
        rows: how many rows it is run on, one run after the other; four rows have one key.
        seed: of the simulated rows.
    """
    if stopper.every < 1:
        raise CheckFailed(f"Stopper.every is {stopper.every}; poll after 1 or more tokens")
    for n in rows:
        first, second = _simulate(stopper, n, seed), _simulate(stopper, n, seed)
        if len(first) != len(second) or any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True)):
            raise CheckFailed("the same rows, seed and events gave different decisions; draw from Rows.seed only")


def _simulate(stopper: Stopper, n: int, seed: int) -> list[NDArray[np.int8]]:
    """Decisions of all polls of ``n`` rows that sample up to 240 tokens; half of them close and then answer."""
    rng = np.random.default_rng([seed, n])
    rows = Rows(tuple(f"item{i // 4}" for i in range(n)), rng.integers(60, 240, n), seed)
    closes = np.where(rng.random(n) < 0.5, rng.integers(10, 120, n), 10**6)
    answers = closes + rng.integers(1, 40, n)
    margins = rng.random((n, 300)).astype(np.float32)
    state, running, decided = stopper.init(rows), np.arange(n), []
    for length in range(stopper.every, 240 + stopper.every, stopper.every):
        running = running[rows.max_tokens[running] >= length]
        event = _event(running, length, closes, answers, partial(_read, margins, running, length))
        before = copy.deepcopy(state)
        decisions, after = stopper.step(state, event)
        if not same(state, before):
            raise CheckFailed("step changed the state it was given; copy before writing")
        if decisions.dtype != np.int8 or decisions.shape != running.shape:
            given = f"{decisions.dtype} of shape {decisions.shape}"
            raise CheckFailed(f"step returned {given}, expected int8 of shape {running.shape}: one decision a row")
        if not np.all(np.isin(decisions, (CONTINUE, FINISH, ABORT))):
            raise CheckFailed(f"step returned {sorted(set(decisions.tolist()))}; decisions are 0, 1 or 2")
        decided.append(decisions)
        state, running = after, running[decisions == CONTINUE]
    if stopper.kept_weight is not None:
        weight = stopper.kept_weight(state)
        if weight.shape != (n,) or not np.all(np.isfinite(weight)) or np.any(weight < 0):
            raise CheckFailed(
                f"kept_weight returned shape {weight.shape}; it gives one finite weight >= 0 for {n} rows"
            )
    return decided


def _event(running: I64, length: int, closes: I64, answers: I64, margin: Callable[[], NDArray[np.float32]]) -> Event:
    def reached(at: I64) -> I64:
        return np.where(at[running] <= length, at[running], -1)

    return Event(running, np.full(len(running), length), reached(closes), reached(answers), margin)


def _read(margins: NDArray[np.float32], running: I64, length: int) -> NDArray[np.float32]:
    margin: NDArray[np.float32] = margins[running, length]
    return margin
