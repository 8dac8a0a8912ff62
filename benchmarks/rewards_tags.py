"""The control of AdaCtrl's dial: a reward that reads tags which say nothing of the row that they stand at."""

from __future__ import annotations

from typing import Any

import numpy as np

from budgeteer.core.plan import F64
from budgeteer.models.chat import EASY_TAG, HARD_TAG
from budgeteer.rl.reward.protocol import Columns, Reward

TAGS = (EASY_TAG, HARD_TAG)


def shuffled_tags(reward: Reward) -> Reward:
    """The reward, which reads at the head of every row's text the tag of a row drawn at random from the same step,
    with its own rows' tags as often as they are there, so that a policy is paid for none that it chooses.

    The draw is a function of how many steps there were, which is the state beside the reward's own.

    Args:
        reward: one that reads the column ``text``, such as ``adactrl``.
    """

    def swapped(steps: int, rows: Columns) -> Columns:
        tags, rests = zip(*map(parted, rows.column("text", "shuffled_tags")), strict=True) if len(rows) else ((), ())
        order = np.random.default_rng(steps).permutation(len(rows)).tolist()
        return rows.with_columns(text=[tags[other] + rest for other, rest in zip(order, rests, strict=True)])

    def score(state: tuple[Any, int], rows: Columns) -> F64:
        return reward.score(state[0], swapped(state[1], rows))

    def observe(state: tuple[Any, int], rows: Columns) -> tuple[Any, int]:
        return reward.observe(state[0], swapped(state[1], rows)), state[1] + 1

    return Reward(score, lambda: (reward.init(), 0), observe, reward.needs)


def parted(text: str) -> tuple[str, str]:
    """The tag at the head of a text, and the rest of it.

    >>> parted("[Easy] 7"), parted("7")
    (('[Easy]', ' 7'), ('', '7'))
    """
    tag = next((tag for tag in TAGS if text.startswith(tag)), "")
    return tag, text.removeprefix(tag)
