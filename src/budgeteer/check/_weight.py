"""The rules of token weights."""

from __future__ import annotations

import numpy as np

from budgeteer.check._common import CheckFailed
from budgeteer.core.plan import F64, I64
from budgeteer.rl.recipe import TokenWeightFn


def check_weight(weight: TokenWeightFn, *, seed: int = 0) -> None:
    """Weigh the tokens of made-up rollouts, and raise :class:`CheckFailed` at the first broken rule.

    Rules: the weight is one finite number >= 0 per row, or per token ([n, t], t the largest length), above 0 for some;
    rows are grouped by ``group``: neither the order of the rows nor the numbers of the groups, of which some may be
    missing, change the weight of a row; lengths and groups are not changed; a step without rows works.

    Args:
        weight: the token weight to check.
        seed: of the rollouts.
    """
    rng = np.random.default_rng([seed, 12])
    for n in (1, 33, 0):
        length, group = rng.integers(1, 64, n), 2 * rng.integers(0, 6, n)
        given = length.copy(), group.copy()
        weighed = _weights(weight, length, group)
        order = rng.permutation(n)
        if not np.allclose(_weights(weight, length[order], group[order]), weighed[order]):
            raise CheckFailed("weights change with the order of the rows; group by the index, never by position")
        if not np.allclose(_weights(weight, length, 10 - group), weighed):
            raise CheckFailed("weights change with the numbers of the groups; they are only names")
        if not (np.array_equal(length, given[0]) and np.array_equal(group, given[1])):
            raise CheckFailed("the method changed the lengths or groups it was given; copy before writing")


def _weights(weight: TokenWeightFn, length: I64, group: I64) -> F64:
    weighed, longest = np.asarray(weight(length, group)), int(length.max(initial=0))
    if weighed.shape == (len(length), longest):
        weighed = np.where(np.arange(longest) < length[:, None], weighed, 0.0)  # behind the end nothing counts
    elif weighed.shape != length.shape:
        raise CheckFailed(
            f"the method returned weights of shape {weighed.shape} for {len(length)} rows, the longest of {longest} "
            "tokens; one weight a row, or one for each of its tokens"
        )
    if not np.all(np.isfinite(weighed)) or np.any(weighed < 0):
        raise CheckFailed(f"the method returned {weighed.tolist()}; one finite weight >= 0 a row, or a token")
    if len(length) and not np.any(weighed > 0):
        raise CheckFailed("all weights are 0, and nothing would be learnt; weigh some rows above 0")
    return weighed
