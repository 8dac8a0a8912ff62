"""Made-up rollouts, and the rules of parts that read rollouts: numpy only."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np

from budgeteer.check._common import CheckFailed, same
from budgeteer.core.plan import ABORTED, CUT, ENDED, F64, FINISHED, Items, Plan
from budgeteer.rl.history import History, Memory, record
from budgeteer.rl.recipe import View
from budgeteer.rl.rollouts import Role, Rollouts

ROWS = 33
"""Rollouts of a step: eight prompts with four and one with a single one, as :func:`check_steer` has them."""
MOST = 64
"""Tokens of a rollout."""


def made_up(seed: int, memory: Memory | None = None) -> tuple[Rollouts, View]:
    """Rollouts of a step and what the recipe may look at: groups all right, all wrong and mixed, rows of every end."""
    rng = np.random.default_rng([seed, 10])
    units = np.array([4] * 8 + [1], np.int64)
    keys = tuple(f"item{i}" for i in range(len(units)))
    group = np.repeat(np.arange(len(units)), units)
    status = rng.choice(np.array([ENDED, FINISHED, ABORTED, CUT], np.int8), ROWS)
    reward = np.where((group == 0) | ((group > 1) & (rng.random(ROWS) < 0.5)), 1.0, 0.0)
    reward[status == ABORTED] = 0.0
    length = rng.integers(1, MOST, ROWS)
    within = np.arange(MOST) < length[:, None]
    unknown = np.full(ROWS, -1)
    tokens = np.where(within, rng.integers(3, 9, (ROWS, MOST)), 0)
    logprob = np.where(within, -rng.random((ROWS, MOST)), 0).astype(np.float32)
    weight = np.where(rng.random(ROWS) < 0.1, 20.0, 1.0)
    rollouts = Rollouts(
        keys,
        tuple((1, 2, i) for i in range(len(units))),
        group,
        tokens,
        length,
        np.full(ROWS, MOST),
        logprob,
        np.where(within, Role.SAMPLED, Role.NONE).astype(np.int8),
        np.where(within, 0, -1).astype(np.int32),
        status,
        unknown,
        unknown,
        reward,
        reward,
        weight,
        27,
        np.where(within, rng.random((ROWS, MOST)), np.nan).astype(np.float32),
    )
    history = History.empty()
    for _ in range(2):  # earlier steps saw all prompts but the last
        seen = rollouts.outcomes(rng.normal(size=ROWS)).take(group < len(units) - 1)
        history = record(history, seen, memory or Memory())
    n = len(units)
    rate = np.append(rng.random(n - 1), np.nan)
    items = Items(keys, rng.uniform(10, 60, n), std=rng.uniform(0.05, 0.5, n), pass_rate=rate, visits=np.full(n, 2))
    return rollouts, View(items, Plan(keys, units, items.spend(units)), history, MOST)


def by_key(name: str, part: Callable[[Rollouts], F64], rollouts: Rollouts, seed: int) -> None:
    """Raise :class:`CheckFailed` unless the part gives each row (or token) a number that depends on its group alone."""
    rng = np.random.default_rng([seed, 13])
    expected = _column(name, part, rollouts)
    order = rng.permutation(ROWS)
    rows = {f.name: getattr(rollouts, f.name) for f in fields(rollouts)}
    rows = {field: column[order] for field, column in rows.items() if isinstance(column, np.ndarray)}
    if not np.allclose(_column(name, part, replace(rollouts, **rows)), expected[order]):
        raise CheckFailed(f"{name} changes with the order of the rows; group by Rollouts.group, never by position")
    turned = replace(
        rollouts,
        keys=rollouts.keys[::-1],
        prompts=rollouts.prompts[::-1],
        group=len(rollouts.keys) - 1 - rollouts.group,
    )
    if not np.allclose(_column(name, part, turned), expected):
        raise CheckFailed(f"{name} changes with the order of the prompts; look them up by key, never by position")


def _column(name: str, part: Callable[[Rollouts], F64], rollouts: Rollouts) -> F64:
    given = copy.deepcopy(rollouts)
    column = np.asarray(part(rollouts))
    if not same(given, rollouts):
        raise CheckFailed(f"{name} changed the rollouts it was given; copy before writing")
    if column.shape not in ((ROWS,), rollouts.tokens.shape) or not np.all(np.isfinite(column)):
        bad = np.argwhere(~np.isfinite(column))[:, 0].tolist() if column.shape == (ROWS,) else []
        where = f", rows {bad} not finite" if bad else ""
        raise CheckFailed(
            f"{name} has shape {column.shape}{where}; one finite number for each of {ROWS} rows, or of their tokens"
        )
    if name != "advantage" and np.any(column < 0):
        raise CheckFailed(f"{name} has {float(column.min())}; weights are 0 or more")
    return column
