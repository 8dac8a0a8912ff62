"""One line: which prompts come next.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

import numpy as np

from budgeteer.core.plan import I64, Outcomes
from budgeteer.rl.recipe import Stream


def by_key() -> Stream:
    """Prompts in the order of their keys, again and again; the state is how many were taken.

    Helps when keys are written from easy to hard; does not when neighbours are alike, so that a step learns one thing.

    >>> stream = by_key()
    >>> stream.pick(0, ("b", "a", "c"), 2, seed=0).tolist(), stream.pick(2, ("b", "a", "c"), 2, seed=0).tolist()
    ([1, 0], [2, 1])
    """

    def pick(state: int, keys: tuple[str, ...], count: int, seed: int) -> I64:
        order: I64 = np.argsort(np.array(keys), kind="stable")
        return order[(state + np.arange(count)) % len(keys)]

    def observe(state: int, keys: tuple[str, ...], taken: I64, outcomes: Outcomes) -> int:
        return state + len(taken)

    return Stream(lambda: 0, pick, observe)
