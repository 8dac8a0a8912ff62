"""Another reward, for right answers only: what wrong ones get is the verifier's score, whatever their length."""

from __future__ import annotations

from typing import Any

import numpy as np

from budgeteer.core import registry
from budgeteer.core.plan import F64, right
from budgeteer.rl.reward.protocol import Columns, Reward, of_terms


def right_only(inner: str = "kimi") -> Reward:
    """``inner`` for a right row, but 0 at least, and the verifier's score for a wrong one: shaping that success gates.

    A length term that wrong answers get, too, teaches to fail fast on prompts that are never solved, where it is all
    that differs between rows. This takes it away from them; what right answers get stays as it is. It takes away what
    ``inner`` pays wrong rows on purpose as well (exploration of LASER-DE, length of the cosine).

    Args:
        inner: name of a reward with its options, or a sum of several in quotes:
            ``right-only:inner="kimi+0.5*laser"``.

    Raises:
        UnknownName: no such reward, or it has no such option.

    >>> rows = Columns([1, 1, 0, 0], [10, 30, 10, 30], [0] * 4, [99] * 4, [1] * 4)
    >>> right_only("kimi").score((), rows).tolist()
    [1.5, 0.5, 0.0, 0.0]
    """
    shaped: Reward = registry.part_of("reward", inner)

    def terms(state: Any, rows: Columns) -> dict[str, F64]:
        added = np.maximum(shaped.score(state, rows), 0.0) - rows.correct
        return {"correct": rows.correct, "shaping": np.where(right(rows.correct), added, 0.0)}

    return of_terms(terms, shaped.init, shaped.observe, shaped.needs, shaped.monitor)
