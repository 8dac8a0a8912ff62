"""Rollouts that wait for a later step: those that a step had no tokens left to go on with, and those that it cut."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.plan import I64
from budgeteer.rl.recipe import Beginnings
from budgeteer.rl.rollouts import Rollouts


def not_started(beginnings: Beginnings, rollouts: Rollouts, step: int) -> Beginnings:
    """The beginnings of which no rollout of the step is the continuation.

    Args:
        beginnings: that the step was to continue.
        rollouts: of the step, whole.
        step: its number; tokens of earlier ones are those of a beginning.
    """
    if not len(beginnings):
        return beginnings
    old = (rollouts.version >= 0) & (rollouts.version < step)
    begun = Counter(
        _named(rollouts.keys[group], tokens, version, int(length))
        for group, tokens, version, length in zip(
            rollouts.group.tolist(), rollouts.tokens, rollouts.version, old.sum(1).tolist(), strict=True
        )
    )
    waits = []
    for i, key in enumerate(beginnings.keys):
        name = _named(key, beginnings.tokens[i], beginnings.version[i], int(beginnings.length[i]))
        if begun[name]:
            begun[name] -= 1
        else:
            waits.append(i)
    return Beginnings(
        tuple(beginnings.keys[i] for i in waits),
        beginnings.tokens[waits],
        beginnings.length[waits],
        beginnings.version[waits],
        beginnings.logprobs[waits],
    )


def joined(first: Beginnings, second: Beginnings) -> Beginnings:
    """All rows of both.

    >>> one = Beginnings(("a",), np.array([[5]]), np.array([1]), np.array([[0]]))
    >>> two = Beginnings(("b",), np.array([[6, 7]]), np.array([2]), np.array([[1, 1]]))
    >>> both = joined(one, two)
    >>> both.keys, both.tokens.tolist(), both.version.tolist()
    (('a', 'b'), [[5, 0], [6, 7]], [[0, -1], [1, 1]])
    """
    if not len(first) or not len(second):
        return first if len(first) else second
    return Beginnings(
        first.keys + second.keys,
        _below(first.tokens, second.tokens, 0),
        np.concatenate([first.length, second.length]),
        _below(first.version, second.version, -1),
        _below(first.logprobs, second.logprobs, np.nan),
    )


def _named(key: str, tokens: I64, version: I64, length: int) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    return key, tuple(tokens[:length].tolist()), tuple(version[:length].tolist())


def _below(upper: NDArray[Any], lower: NDArray[Any], empty: float) -> NDArray[Any]:
    """Two tables one below the other, the narrower one filled up on the right."""
    width = max(upper.shape[1], lower.shape[1])
    return np.concatenate(
        [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=empty) for part in (upper, lower)]
    )
