"""One line: what rollouts are asked with besides their prompts.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.rl.recipe import Variant, Variants, View
from budgeteer.rl.rollouts import Rollouts


def nudged(text: str = "Wait, ") -> Variant:
    """Every second rollout of a run begins with ``text``: a head of the answer that carries no gradient.

    Helps when the model hardly ever writes such words and should learn what to do after them; does not when it does.

    Args:
        text: the head of the answer.

    Raises:
        InvalidInput: there is none.
    """
    if not text:
        raise InvalidInput("nudged(text='') nudges nobody; give a text")

    def vary(state: int, view: View, rng: np.random.Generator) -> Variants:
        rows = state + np.arange(int(view.plan.units.sum()))
        return Variants(hint=tuple(text if row % 2 else "" for row in rows.tolist()))

    def observe(state: int, rollouts: Rollouts) -> int:
        return state + len(rollouts)

    return Variant(vary, lambda: 0, observe)
