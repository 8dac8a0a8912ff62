"""The model says Easy or Hard first, and is paid for being right about it (AdaCtrl, arXiv 2505.18822)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, right
from budgeteer.models.chat import EASY_TAG, HARD_TAG
from budgeteer.rl.reward.counted import behind_opening
from budgeteer.rl.reward.kit import near_cap, numbered, pass_rate, weights
from budgeteer.rl.reward.protocol import Columns, Reward, of_terms


def adactrl(length: float = 0.5, tag: float = 0.5, *, hard: bool = False) -> Reward:
    """Rightness, a bonus for short right answers that are tagged Easy, and a calibration of the tag.

    A prompt is Easy if more than 0.625 of its rollouts are right, else Hard. With T the longest of its rollouts,
    ``r = accuracy + near the cap + length * r_len + tag * r_cal``, where accuracy is 1 or -1, near the cap is the
    punishment of ``overlong`` over the last sixth of the cap, r_len = (1 + cos(pi L / T)) / 2 for a right row that
    begins with ``[Easy]``, or whose thinking does, else 0, and r_cal is 1 for the tag that the prompt deserves, 0 for
    the other one, -1 for none.

    The paper's code has two length terms: this one is its default; with ``hard`` it is the other one, for rows whose
    tag is the deserved one, right or not: as above for Easy, and 1 less that for Hard, where longer is better.

    Helps models that were taught the tags on short and long solutions before; without such a start every row loses the
    calibration alike, and what remains is rightness with a punishment near the cap. Labels flip near 0.625.

    Args:
        length, tag: weights, 0 or more.
        hard: reward length on hard prompts.

    Raises:
        InvalidInput: a weight below 0.

    >>> texts = ["[Easy] 7", "[Hard] 7", "7"]
    >>> rows = Columns([1, 1, 1], [10, 20, 20], [0] * 3, [60] * 3, [1] * 3, text=texts)
    >>> adactrl().score((), rows).tolist()
    [1.75, 1.0, 0.5]
    """
    if not weights(length, tag):
        raise InvalidInput(f"adactrl(length={length}, tag={tag}); give weights of 0 to 1e6")

    def terms(state: object, rows: Columns) -> dict[str, F64]:
        good, texts = right(rows.correct), rows.column("text", "adactrl").tolist()
        easy, named_hard = (
            np.array([behind_opening(text).startswith(name) for text in texts], np.bool_)
            for name in (EASY_TAG, HARD_TAG)
        )
        deserved = np.where(pass_rate(rows) > 0.625 + 1e-9, easy, named_hard)
        index, groups = numbered(rows.group)
        longest = np.ones(groups)
        np.maximum.at(longest, index, rows.length)
        short = 0.5 * (1 + np.cos(np.pi * rows.length / longest[index]))
        lengths = np.where(easy, short, 1 - short) * deserved if hard else short * (easy & good)
        calibration = np.where(deserved, 1.0, np.where(easy | named_hard, 0.0, -1.0))
        return {
            "correct": np.where(good, 1.0, -1.0),
            "cap": near_cap(rows, 1 / 6),
            "length": np.asarray(length * lengths, np.float64),
            "tag": tag * calibration,
        }

    return of_terms(terms, needs=("text",))
