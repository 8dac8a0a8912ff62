"""The rollouts of a prompt share out several budgets, said at the head of the answer (HBPO, arXiv 2507.15844)."""

from __future__ import annotations

import math

import numpy as np

from budgeteer.core.words import filled
from budgeteer.rl.recipe import Variant, Variants, View

SHARES = (1 / 8, 1 / 4, 1 / 2, 5 / 8)
"""Budgets as shares of a rollout's cap: 512, 1024, 2048 and 2560 of 4096 tokens in the paper."""


def split_budgets(text: str = "{tokens}: ") -> Variant:
    """A prompt's rollouts take the four budgets in turns, from one that is drawn, say theirs at the head of the answer,
    and have it in the column ``target``.

    Helps a model to try short and long answers of each prompt side by side, so that a reward such as ``hbpo`` can tell
    which it needs. Give each prompt 4 rollouts or a multiple. Nothing holds a rollout to its budget.

    Args:
        text: with ``{tokens}`` where the number stands; the paper has "I will answer the question within {tokens}
            tokens. " The embedded reasoner knows no English: the bare number of the default disturbs it least.

    Raises:
        InvalidInput: a text without ``{tokens}``.
    """
    filled(text, tokens=1)

    def vary(state: object, view: View, rng: np.random.Generator) -> Variants:
        first = rng.integers(len(SHARES), size=len(view.items))
        turns = [(start + np.arange(n)) % len(SHARES) for start, n in zip(first, view.plan.units, strict=True)]
        target = [
            max(1, math.floor(view.max_tokens * SHARES[i] + 1e-9)) for i in np.concatenate([[], *turns]).astype(int)
        ]
        said = tuple(filled(text, tokens=tokens) for tokens in target)
        return Variants(hint=said, columns={"target": np.array(target, np.float64)})

    return Variant(vary, gives=("target",))
