"""Rollouts that nobody sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from budgeteer.core.plan import ENDED
from budgeteer.rl.rollouts import Role, Rollouts

A = np.array


def rows_of(
    tokens: Sequence[Sequence[int]],
    reward: Sequence[float] | None = None,
    group: Sequence[int] | None = None,
    status: Sequence[int] | None = None,
    version: int = 0,
    cap: int = 9,
    **more: Any,
) -> Rollouts:
    """Rollouts with these tokens, all sampled, of one prompt or of several."""
    n, width = len(tokens), max(map(len, tokens))
    length = A([len(row) for row in tokens])
    within = np.arange(width) < length[:, None]
    padded = A([[*row, *[0] * (width - len(row))] for row in tokens])
    groups = np.zeros(n, np.int64) if group is None else np.asarray(group)
    rewards = np.zeros(n) if reward is None else np.asarray(reward, float)
    role = np.where(within, Role.SAMPLED, Role.NONE).astype(np.int8)
    return Rollouts(
        tuple("abc"[: groups.max() + 1]), ((1, 2),) * (int(groups.max()) + 1), groups, padded, length, np.full(n, cap),
        np.where(within, np.float32(-1), np.float32(np.nan)), role, np.where(within, version, -1).astype(np.int32),
        np.full(n, ENDED, np.int8) if status is None else A(status, np.int8), np.full(n, -1), np.full(n, -1), rewards,
        rewards, np.ones(n), 2, **more,
    )  # fmt: skip
