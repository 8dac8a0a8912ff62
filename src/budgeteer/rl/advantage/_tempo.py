"""Credit where rollouts of a prompt part (TEMPO, arXiv 2509.18314): the rollouts of a group as a tree of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from budgeteer.core.plan import F64
from budgeteer.rl.advantage.kit import group_norm

if TYPE_CHECKING:
    from budgeteer.rl.recipe import View
    from budgeteer.rl.rollouts import Rollouts


def tempo(rollouts: Rollouts, view: View) -> F64:
    """[n, t] (r_i - mean of the group + V(tokens up to t) - V(tokens before t)) / (std of the group).

    V of a beginning is the mean reward of the group's rollouts that begin so. Where all rollouts part at their first
    token, or once a rollout is alone, it is GRPO's advantage; a group of equal rewards has 0. Needs no further tokens.
    Helps where rollouts share beginnings (low temperature, small vocabularies); does not where they part at once. As in
    the paper's code the value of a beginning includes the rollout itself.
    """
    plain = group_norm(rollouts.reward, rollouts.group, len(rollouts.keys))
    credit = np.repeat(plain[:, None], rollouts.tokens.shape[1], axis=1)
    tokens = np.where(np.arange(credit.shape[1]) < rollouts.length[:, None], rollouts.tokens, -1)
    for g in range(len(rollouts.keys)):
        rows = np.flatnonzero(rollouts.group == g)
        std = rollouts.reward[rows].std() if len(rows) else 0.0
        if std <= 1e-8:
            continue
        node = np.zeros(len(rows), np.int64)  # rows with the same number have begun in the same way
        before = np.full(len(rows), rollouts.reward[rows].mean())
        for t in range(credit.shape[1]):
            pair = np.stack([node, tokens[rows, t]], axis=1)
            _, node = np.unique(pair, axis=0, return_inverse=True)
            node = node.reshape(-1)
            size = np.bincount(node)
            value = (np.bincount(node, rollouts.reward[rows]) / size)[node]
            credit[rows, t] += (value - before) / std
            if size.max() == 1:
                break
            before = value
    return credit
