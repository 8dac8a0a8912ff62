"""The prompt says what share of the usual thinking is allowed (Adaptive Effort Control, e1, arXiv 2510.27042)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.rl.reward.kit import group_mean
from budgeteer.rl.reward.protocol import Columns, Reward


@dataclass(frozen=True, slots=True)
class Usual:
    """The usual tokens of thinking of the prompts that were seen at full effort.

    Attributes:
        keys: n prompts; length: [n] moving means.
    """

    keys: tuple[str, ...]
    length: F64


def e1(keep: float | None = None) -> Reward:
    """The verifier's score if the thinking is no longer than the effort allows, else 0.

    ``r_i = correct_i * [l_i <= effort_i * T]`` with l the tokens before the one that closes the thinking (all of them
    where nothing closes it) and T their mean over the prompt's rollouts; at effort 1 it is the verifier's score.

    T is measured on the same prompts, effort text included, so that efforts below 1 shorten the thinking at every step:
    mix prompts of effort 1 in, and stop when lengths are where you want them. With ``keep``, T is a moving mean over
    the visits of the prompt at effort 1 instead, which what is asked at other efforts does not move; before the first
    such visit it is the mean of the rollouts. (What the paper measures T on could not be seen.) Helps to sell thinking
    by a number that fits easy and hard prompts alike; a group of which every row is too long teaches nothing.

    Args:
        keep: how much the moving mean keeps at a visit, in [0, 1); None = no memory.

    Raises:
        InvalidInput: another share.

    >>> rows = Columns([1, 1, 1, 0], [9, 5, 6, 2], [0] * 4, [9] * 4, [1] * 4, closed=[7, 4, -1, 2], effort=[0.8] * 4)
    >>> e1().score((), rows).tolist()
    [0.0, 1.0, 0.0, 0.0]
    """
    if keep is not None and not 0 <= keep < 1:
        raise InvalidInput(f"e1(keep={keep}); give 0 or more and less than 1, or none")

    def score(state: Usual, rows: Columns) -> F64:
        effort, thinking = rows.column("effort", "e1"), _thinking(rows)
        usual = group_mean(thinking, rows.group)
        if keep is not None and state.keys:
            known = dict(zip(state.keys, state.length.tolist(), strict=True))
            named = zip(rows.column("prompt_key", "e1").tolist(), usual.tolist(), strict=True)
            usual = np.array([known.get(key, mean) for key, mean in named], np.float64)
        within = (effort >= 1) | (thinking <= effort * usual + 1e-9)
        return np.where(within, rows.correct, 0.0)

    if keep is None:
        return Reward(score, needs=("closed", "effort"))

    def observe(state: Usual, rows: Columns) -> Usual:
        known = dict(zip(state.keys, state.length.tolist(), strict=True))
        keys, full = rows.column("prompt_key", "e1"), rows.column("effort", "e1") >= 1
        thinking = _thinking(rows)
        for key in sorted(set(keys[full].tolist())):
            mean = float(thinking[full & (keys == key)].mean())
            known[key] = keep * known[key] + (1 - keep) * mean if key in known else mean
        return Usual(tuple(known), np.array([*known.values()], np.float64))

    return Reward(score, lambda: Usual((), np.zeros(0)), observe, ("closed", "effort", "prompt_key"))


def _thinking(rows: Columns) -> I64:
    """[n] tokens before the one that closes the thinking; all of them where nothing closes it."""
    closed = rows.column("closed", "e1")
    return np.where(closed >= 0, closed - 1, rows.length).astype(np.int64)
