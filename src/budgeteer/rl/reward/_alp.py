"""A price of length that grows with how often the prompt is solved (ALP, arXiv 2506.05256)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.rl.reward.kit import pass_rate, share_of_cap, weights
from budgeteer.rl.reward.protocol import Columns, Reward, of_terms


def alp(price: float = 0.2) -> Reward:
    """``c - price * n / cap * max(p, 1 / K)``, with p the share of the prompt's K rollouts that is right.

    Easy prompts pay for every token, hard ones hardly any: a prompt that is never solved pays as one that is solved
    once. Wrong rows pay, too, so that on a prompt without a right row shorter is better, if for little; with advantages
    that are scaled to the group (GRPO's) a little is as much as a lot: use ``advantage=centred``.

    Apriel-Reasoner (arXiv 2604.02007) scales a length penalty by the solve rate as well; its own formula could not be
    seen.

    Args:
        price: of the whole cap at a pass rate of 1, 0 or more. The paper's is a price of a token; here it is of a cap,
            since caps differ by orders of magnitude.

    Raises:
        InvalidInput: a price below 0.

    >>> rows = Columns([1, 1, 0, 0], [50, 100, 50, 50], [0] * 3 + [1], [100] * 4, [1] * 4)
    >>> alp(0.3).score((), rows).round(9).tolist()
    [0.9, 0.8, -0.1, -0.15]
    """
    if not weights(price):
        raise InvalidInput(f"alp(price={price}); give 0 to 1e6")

    def terms(state: object, rows: Columns) -> dict[str, F64]:
        _, index, count = np.unique(rows.group, return_inverse=True, return_counts=True)
        factor = np.maximum(pass_rate(rows), 1 / count[index.reshape(-1)]) if len(rows) else np.zeros(0)
        return {"correct": rows.correct, "length": np.asarray(-price * share_of_cap(rows.length, rows) * factor)}

    return of_terms(terms)
