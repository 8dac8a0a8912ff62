"""Beam search by steps: the best n / width paths go on, each with width rollouts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.solve import Strategy
from budgeteer.strategies.kit.steps import step_search
from budgeteer.strategies.scorer import Scorer, scorer_of


def beam(
    scorer: Scorer | str = "self-evaluation",
    n: int = 16,
    *,
    width: int = 4,
    step: str = "\n\n",
    step_tokens: int = 256,
    depth: int = 16,
    temperature: float = 0.8,
) -> Strategy:
    """Search by steps that keeps the ``n / width`` best distinct paths, with ``width`` rollouts each.

    When it helps: the scorer is right. When not: the scorer errs, and all rollouts follow its error. It is the limit of
    :func:`budgeteer.strategies._dora.optimal_copies` when the scores are trusted without limit.

    Args:
        scorer: a scorer of partial traces, or its name.
        n: rollouts in each round.
        width: rollouts of each path kept.
        step, step_tokens, depth, temperature: as in :func:`budgeteer.strategies.kit.steps.step_search`.
    """
    if not 1 <= width <= n:
        raise InvalidInput(f"beam(n={n}, width={width}); needs 1 <= width <= n")

    def copies(scores: F64, texts: Sequence[str], n: int) -> I64:
        units, seen, left = np.zeros(len(texts), np.int64), set(), n
        for j in np.argsort(-scores, kind="stable").tolist():
            if left and texts[j] not in seen:
                seen.add(texts[j])
                units[j] = min(width, left)
                left -= int(units[j])
        if left:  # fewer distinct paths than places: the best ones get the rest
            units[np.argmax(scores)] += left
        return units

    return step_search(
        copies, scorer_of(scorer), n, step=step, step_tokens=step_tokens, depth=depth, temperature=temperature
    )
