"""Modes of effort, of which the small ones pay for being short, and no thinking in the answer (arXiv 2508.18773)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, right
from budgeteer.rl.reward.counted import LEAKS
from budgeteer.rl.reward.kit import between, weights
from budgeteer.rl.reward.protocol import Columns, Reward, of_terms


def thinkdial(medium: float = 0.5, low: float = 1.0, leak: float = 0.5) -> Reward:
    """The verifier's score, a length term that the mode weighs, and a term for answers that go on thinking.

    With x = 1/2 - (n - shortest) / (longest - shortest) among the rows of the prompt that were asked in the same mode
    (n = all tokens, thinking and answer), the length term is x for a right row and min(0, x) for a wrong one, times 0
    for the mode high, ``medium`` and ``low`` for the others. The third term is ``leak`` if the text behind the thinking
    has no word of transition (wait, actually, let me think, ...), else ``-leak``.

    The mode is the column ``effort``: 1 is high, from 1/2 on medium, below low (``variant=effort-modes``). Helps
    to keep one dial with three stops; nothing here says how long a mode is to be, so measure it. The leak term is paid
    to wrong answers, too: in the mode low a short tidy wrong answer gets as much as a long right one that leaks. The
    paper tunes on cut traces first (``budgeteer data thinkdial``), and trains the mode high alone before the others
    (``variant=effort-modes:alone=0.7``).

    Args:
        medium, low: weight of the length in these modes, 0 or more.
        leak: 0 or more.

    Raises:
        InvalidInput: a value below 0.

    >>> rows = Columns([1, 1, 0], [10, 30, 10], [0] * 3, [99] * 3, [1] * 3, effort=[0.25] * 3, leaks=[0, 0, 1])
    >>> thinkdial().score((), rows).tolist()
    [2.0, 1.0, -0.5]
    """
    if not weights(medium, low, leak):
        raise InvalidInput(f"thinkdial(medium={medium}, low={low}, leak={leak}); give 0 to 1e6")

    def terms(state: object, rows: Columns) -> dict[str, F64]:
        effort = rows.column("effort", "thinkdial")
        _, mode = np.unique(np.stack([rows.group, effort], axis=1), axis=0, return_inverse=True)
        x = between(rows.length, mode.reshape(-1))
        weight = np.where(effort >= 1, 0.0, np.where(effort >= 0.5, medium, low))
        tidy = rows.column(LEAKS, "thinkdial") == 0
        return {
            "correct": rows.correct,
            "length": weight * np.where(right(rows.correct), x, np.minimum(x, 0.0)),
            "leak": np.where(tidy, leak, -leak),
        }

    return of_terms(terms, needs=("effort", LEAKS))
