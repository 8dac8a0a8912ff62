"""Thinking where the prompt is labelled to need it (AdaCoT, arXiv 2505.11896)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.rl.reward.counted import DELIBERATE
from budgeteer.rl.reward.kit import weights
from budgeteer.rl.reward.protocol import Columns, Reward, of_terms


def adacot(missed: float = 0.3, needless: float = 0.3, untidy: float = 1.0) -> Reward:
    """``c - missed * [needed, not there] - needless * [there, not needed] - untidy * [no complete answer]``.

    What is needed is the prompt's label, and what is there is whether anything is thought before the answer. The
    paper's four runs have (0.1, 0.3), (0.2, 0.3), (0.3, 0.3) and (0.3, 0.1): the larger ``missed`` beside ``needless``,
    the more is thought. Labels are not outcomes: a prompt labelled wrongly is punished for being answered well. A wrong
    answer without thinking is worth more than one with it, where the label says that none is needed.

    Args:
        missed, needless, untidy: 0 or more.

    Raises:
        InvalidInput: a value below 0.

    >>> rows = Columns([1, 1, 0], [9, 2, 9], [0, 0, 1], [9] * 3, [1] * 3, deliberate=[1, 0, 1],
    ...                needs_thinking=[1, 1, 0], answered=[9, 2, -1])
    >>> adacot(0.1, 0.3).score((), rows).tolist()
    [1.0, 0.9, -1.3]
    """
    if not weights(missed, needless, untidy):
        raise InvalidInput(f"adacot(missed={missed}, needless={needless}, untidy={untidy}); give 0 to 1e6")

    def terms(state: object, rows: Columns) -> dict[str, F64]:
        needed = rows.column("needs_thinking", "adacot") > 0
        there = rows.column(DELIBERATE, "adacot") > 0
        return {
            "correct": rows.correct,
            "missed": np.where(needed & ~there, -missed, 0.0),
            "needless": np.where(there & ~needed, -needless, 0.0),
            "format": np.where(rows.column("answered", "adacot") < 0, -untidy, 0.0),
        }

    return of_terms(terms, needs=("needs_thinking", DELIBERATE, "answered"))
