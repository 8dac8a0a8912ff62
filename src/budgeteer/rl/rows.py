"""Advantages for the rows of somebody else's trainer, where groups are named by a key and may have any size."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import ENDED, F64, I64, Items, Plan
from budgeteer.core.spec import parse
from budgeteer.rl.advantage.kit import history_baseline
from budgeteer.rl.history import History
from budgeteer.rl.recipe import View
from budgeteer.rl.rollouts import Rollouts

__all__ = ["GROUPED", "advantages", "turn_advantages"]

GROUPED = ("grpo", "centred", "rloo", "batch-scaled", "opo", "pass-at-k")
"""Advantages that read rewards, groups and lengths alone, so that any trainer can give what they need."""

HISTORY = "shrunk"
"""The advantage that reads what is known of a prompt from before, too."""


def advantages(
    method: str,
    reward: Any,
    keys: Sequence[Hashable],
    *,
    length: Any = None,
    counted: Any = None,
    prior: Any = None,
) -> F64:
    """[n] advantages of rows, grouped by key; the rows of a group may stand anywhere, and groups may have any size.

    Rows that do not count get 0 and are left out of all means and deviations: those whose reward is NaN, those with
    ``length`` 0 (padding, rejected rows) and those that ``counted`` leaves out. A group of which one row counts gets 0,
    unless a ``prior`` is its baseline.

    Args:
        method: an advantage of :data:`GROUPED` with its options, such as ``"rloo"`` or ``"pass-at-k:k=8"``; or
            ``"shrunk"``, the leave-one-out mean shrunk to the prior
            (:func:`budgeteer.rl.advantage.history_baseline`).
        reward: [n] of each row.
        keys: n names of groups.
        length: [n] tokens that the policy sampled; needed by ``opo`` only. None = the same for all.
        counted: [n] whether a row counts; None = all.
        prior: [n] mean reward of the row's prompt in earlier steps, the same for all rows of a group, NaN = not known;
            for ``shrunk`` alone.

    Raises:
        InvalidInput: a column of another length, an infinite reward or prior, or an advantage that needs more or less.
        UnknownName: no advantage has this name.

    >>> advantages("rloo", [1.0, 0.0, 1.0, 0.0], ["a", "b", "a", "a"]).tolist()
    [0.5, 0.0, 0.5, -1.0]
    """
    compute = registry.part_of("advantage", method)
    if (name := parse(method, "advantage").name) not in (*GROUPED, HISTORY):
        raise InvalidInput(
            f"advantage {name!r} reads more of a rollout than its reward, group and length; choose one of "
            f"{', '.join((*GROUPED, HISTORY))}"
        )
    if (name == HISTORY) != (prior is not None):
        raise InvalidInput(f"{HISTORY} needs prior, [n], and nothing else reads it; advantage is {name!r}")
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
    if len(rows) and name == HISTORY:
        value[rows] = _shrunk(score[rows], [keys[i] for i in rows.tolist()], _column("prior", prior, n)[rows])
    elif len(rows):
        rollouts, view = _rollouts(score[rows], [keys[i] for i in rows.tolist()], tokens[rows].astype(np.int64))
        value[rows] = compute(rollouts, view)
    return value


def turn_advantages(
    method: str, reward: Any, keys: Sequence[Hashable], *, discount: float = 1.0, **columns: Any
) -> F64:
    """[n, k] advantages of rollouts of several turns: the return of each turn beside those of the same turn.

    A_ij = the advantage of the return G_ij = r_ij + discount * G_i(j+1) among the rollouts of the prompt that have a
    turn j; the returns are those of Group Turn Policy Optimization (Ding and others, 2025). Whether there is a turn j
    is decided before it, so its baseline does not depend on what is done in it: with ``rloo`` the gradient is unbiased.
    (Rewards of single turns, each against the mean of its turn, would pay for or against further turns.) A turn that no
    other rollout of its prompt has gets 0, and so do turns that are not there. With a reward in the last turn alone,
    discount 1 and equally many turns, each turn has the advantage of its rollout.

    Args:
        method: as in :func:`advantages`.
        reward: [n, k] of each turn; NaN = there is no such turn, or nobody scored it: the turns of a row come first.
        keys: n names of groups.
        discount: of a turn's successors, 0 to 1.
        columns: ``length``, ``counted`` and ``prior`` of :func:`advantages`, of rollouts.

    Raises:
        InvalidInput: as there; a reward that is no matrix, a turn behind a missing one, a discount outside [0, 1].

    >>> turn_advantages("centred", [[0.0, 1.0], [0.0, 0.0], [1.0, float("nan")]], ["a", "a", "a"]).round(2).tolist()
    [[0.33, 0.5], [-0.67, -0.5], [0.33, 0.0]]
    """
    score = np.asarray(reward, np.float64)
    if score.ndim != 2 or len(score) != len(keys):
        raise InvalidInput(f"reward has shape {score.shape} for {len(keys)} rows; give [n, turns]")
    if not 0 <= discount <= 1:
        raise InvalidInput(f"discount={discount}; give a number from 0 to 1")
    there = ~np.isnan(score)
    if (there[:, 1:] & ~there[:, :-1]).any():
        raise InvalidInput("a row has a turn behind one without a reward (NaN); give 0 to a turn that earns nothing")
    returns = np.where(there, score, 0.0)
    for turn in range(score.shape[1] - 2, -1, -1):
        returns[:, turn] += discount * returns[:, turn + 1]
    returns[~there] = np.nan
    value = [advantages(method, column, keys, **columns) for column in returns.T]
    return np.stack(value, axis=1) if value else np.zeros(score.shape)


def _shrunk(reward: F64, keys: list[Hashable], prior: F64) -> F64:
    group, groups = _grouped(keys)
    of = np.full(groups, np.nan)
    of[group] = prior
    if not np.array_equal(of[group], prior, equal_nan=True) or np.isinf(prior).any():
        raise InvalidInput("prior differs within a prompt or is infinite; give one number a prompt, or NaN")
    return history_baseline(reward, group, of)


def _grouped(keys: list[Hashable]) -> tuple[I64, int]:
    """[n] numbers of the groups in the order in which their keys first stand, and how many there are."""
    index: dict[Hashable, int] = {}
    return np.array([index.setdefault(key, len(index)) for key in keys], np.int64), len(index)


def _column(name: str, given: Any, n: int) -> F64:
    values = np.asarray(given, np.float64)
    if values.shape != (n,):
        raise InvalidInput(f"{name} has shape {values.shape} for {n} rows; give one number a row")
    return values


def _rollouts(reward: F64, keys: list[Hashable], length: NDArray[np.int64]) -> tuple[Rollouts, View]:
    """The rows as rollouts of which only rewards, groups and lengths are known."""
    group, groups = _grouped(keys)
    names, n = tuple(str(i) for i in range(groups)), len(reward)
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
