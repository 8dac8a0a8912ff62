"""Advantages for the rows of somebody else's trainer, where groups are named by a key and may have any size."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import ENDED, F64, Items, Plan
from budgeteer.core.spec import parse
from budgeteer.rl.history import History
from budgeteer.rl.recipe import View
from budgeteer.rl.rollouts import Rollouts

__all__ = ["GROUPED", "advantages"]

GROUPED = ("grpo", "centred", "rloo", "batch-scaled", "opo", "pass-at-k")
"""Advantages that read rewards, groups and lengths alone, so that any trainer can give what they need."""


def advantages(method: str, reward: Any, keys: Sequence[Hashable], *, length: Any = None, counted: Any = None) -> F64:
    """[n] advantages of rows, grouped by key; the rows of a group may stand anywhere, and groups may have any size.

    Rows that do not count get 0 and are left out of all means and deviations: those whose reward is NaN, those with
    ``length`` 0 (padding, rejected rows) and those that ``counted`` leaves out. A group of which one row counts gets 0.

    Args:
        method: an advantage of :data:`GROUPED` with its options, such as ``"rloo"`` or ``"pass-at-k:k=8"``.
        reward: [n] of each row.
        keys: n names of groups.
        length: [n] tokens that the policy sampled; needed by ``opo`` only. None = the same for all.
        counted: [n] whether a row counts; None = all.

    Raises:
        InvalidInput: a column of another length, an infinite reward, or an advantage that needs more.
        UnknownName: no advantage has this name.

    >>> advantages("rloo", [1.0, 0.0, 1.0, 0.0], ["a", "b", "a", "a"]).tolist()
    [0.5, 0.0, 0.5, -1.0]
    """
    compute = registry.part_of("advantage", method)
    if (name := parse(method, "advantage").name) not in GROUPED:
        raise InvalidInput(
            f"advantage {name!r} reads more of a rollout than its reward, group and length; choose one of "
            f"{', '.join(GROUPED)}"
        )
    n = len(keys)
    score = _column("reward", reward, n)
    tokens = np.ones(n) if length is None else _column("length", length, n)
    counts = np.isfinite(score) & (tokens > 0)
    if counted is not None:
        counts &= _column("counted", counted, n) != 0
    if np.isinf(score).any():
        raise InvalidInput("a reward is infinite; give a number, or NaN for a row that nobody scored")
    rows = np.flatnonzero(counts)
    value = np.zeros(n)
    if len(rows):
        rollouts, view = _rollouts(score[rows], [keys[i] for i in rows.tolist()], tokens[rows].astype(np.int64))
        value[rows] = compute(rollouts, view)
    return value


def _column(name: str, given: Any, n: int) -> F64:
    values = np.asarray(given, np.float64)
    if values.shape != (n,):
        raise InvalidInput(f"{name} has shape {values.shape} for {n} rows; give one number a row")
    return values


def _rollouts(reward: F64, keys: list[Hashable], length: NDArray[np.int64]) -> tuple[Rollouts, View]:
    """The rows as rollouts of which only rewards, groups and lengths are known."""
    index: dict[Hashable, int] = {}
    group = np.array([index.setdefault(key, len(index)) for key in keys], np.int64)
    names, n = tuple(str(i) for i in range(len(index))), len(reward)
    role = (np.arange(int(length.max())) < length[:, None]).astype(np.int8)
    none, unknown = np.full(n, -1), np.broadcast_to(np.float32(np.nan), role.shape)
    rollouts = Rollouts(
        names, ((),) * len(names), group, tokens=np.broadcast_to(np.int64(0), role.shape), length=length, cap=length,
        logprob=unknown, role=role, version=np.broadcast_to(np.int32(0), role.shape),
        status=np.full(n, ENDED, np.int8), closed=none, answered=none, verified=reward, reward=reward,
        weight=np.ones(n), prefill_tokens=0,
    )  # fmt: skip
    items = Items(names, np.ones(len(names)))
    return rollouts, View(items, Plan(names, rollouts.counts, float(n)), History.empty(), int(length.max()))
