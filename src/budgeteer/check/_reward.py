"""The rules of rewards and of token weights: pure functions over the rows of a step."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from budgeteer.check._common import CheckFailed, same
from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.plan import ABORTED, CUT, ENDED, F64, FINISHED, I64
from budgeteer.rl.reward import Columns, Reward

ROWS = 33


def check_reward(reward: Reward, *, seed: int = 0) -> None:
    """Run a reward on made-up rows, and raise :class:`CheckFailed` at the first broken rule.

    Rules: one finite number a row, also for no rows; the same state and rows give the same rewards; state and rows are
    left untouched; the order of the rows does not matter; a state survives JSON, before and after ``observe``.

    Args:
        reward: the reward to check.
        seed: of the rows.
    """
    rng = np.random.default_rng(seed)
    state = reward.init()
    for count in (0, 1, ROWS, ROWS):
        rows = _rows(count, rng)
        found = _pure("score", reward.score, state, rows)
        _finite("score", found, count)
        if not np.array_equal(found, reward.score(state, rows)):
            raise CheckFailed("the same state and rows gave two rewards; draw nothing at random")
        order = rng.permutation(count)
        if not np.allclose(reward.score(state, _taken(rows, order)), np.asarray(found)[order]):
            raise CheckFailed("rewards change with the order of the rows; group by Columns.group, never by position")
        back = load_state(state, json.loads(json.dumps(dump_state(state))))
        if not same(back, state) or not np.array_equal(reward.score(back, rows), found):
            raise CheckFailed("a state read back from JSON is another one, or gives other rewards")
        state = _pure("observe", reward.observe, state, rows)


def check_weight(weight: Callable[[I64, I64], F64], *, seed: int = 0) -> None:
    """Run a token weight ``(length [n], group [n]) -> [n]`` on made-up rows.

    Rules: one finite number >= 0 a row, also for no rows; what it was given is left untouched; the order of the rows
    does not matter.

    Args:
        weight: the function to check.
        seed: of the rows.

    Raises:
        CheckFailed: names the broken rule.
    """
    rng = np.random.default_rng(seed)
    for count in (0, 1, ROWS):
        length, group = rng.integers(1, 90, count), rng.integers(0, 5, count)
        before = length.copy(), group.copy()
        found = np.asarray(weight(length, group))
        if not same(before, (length, group)):
            raise CheckFailed("the weight changed the rows it was given; copy before writing")
        _finite("the weight", found, count)
        if np.any(found < 0):
            raise CheckFailed(f"the weight is {found.min()} for a row; weights are 0 or more")
        order = rng.permutation(count)
        if not np.allclose(weight(length[order], group[order]), found[order]):
            raise CheckFailed("weights change with the order of the rows; group by number, never by position")


def _rows(count: int, rng: np.random.Generator) -> Columns:
    """Rows of every end, with right and wrong answers in most groups."""
    cap = rng.integers(40, 90, count)
    return Columns(
        rng.integers(0, 2, count).astype(np.float64), np.minimum(rng.integers(1, 90, count), cap),
        rng.integers(0, 5, count), cap, rng.choice(np.array([ENDED, FINISHED, ABORTED, CUT], np.int8), count),
    )  # fmt: skip


def _taken(rows: Columns, order: I64) -> Columns:
    return Columns(**{field.name: getattr(rows, field.name)[order] for field in dataclasses.fields(rows)})


def _pure(name: str, part: Callable[[Any, Columns], Any], state: Any, rows: Columns) -> Any:
    before = copy.deepcopy((state, rows))
    found = part(state, rows)
    if not same(before, (state, rows)):
        raise CheckFailed(f"{name} changed its state or its rows in place; return new ones")
    return found


def _finite(name: str, found: Any, count: int) -> None:
    if np.shape(found) != (count,) or not np.all(np.isfinite(found)):
        raise CheckFailed(f"{name} gave shape {np.shape(found)} for {count} rows, or numbers that are not finite")
