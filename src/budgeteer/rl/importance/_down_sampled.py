"""Learn from the rollouts and the tokens that carry most signal (D3S, arXiv 2509.22115)."""

from __future__ import annotations

import math
import zlib

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.rl.advantage.kit import group_norm
from budgeteer.rl.recipe import ENTROPY, Importance, View
from budgeteer.rl.rollouts import Rollouts


def down_sampled(within: float = 0.5, rows: float = 0.25, tokens: float = 0.2) -> Importance:
    """Keep rollouts of large advantage variance, first of each prompt and then of the batch, and of these the tokens of
    largest ``|advantage| * entropy``; the shares grow from what is given to all over the run.

    Advantages are GRPO's, over all rollouts of a prompt. The subset of m values with the largest variance is the i
    largest and the m - i smallest for some i. Each prompt keeps ``within`` of its rollouts, then the batch keeps a
    share of all rollouts that rises linearly from ``rows`` to 1, and what is kept of the tokens rises from ``tokens``
    to 1; numbers are rounded up. Kept tokens weigh alike, and so that with ``token_mean`` the loss is their mean.
    Among equal values lots decide, which are drawn from the rows' own tokens.

    Saves no tokens, but updates: only kept rows cost a backward pass. Helps where most rollouts say little; selecting
    by the size of the advantage is a bias. The paper's values of the three shares could not be found: these are ours.

    Args:
        within: share of a prompt's rollouts, in (0, 1].
        rows, tokens: shares of the batch's rollouts and of their tokens at the start of the run, in (0, 1].

    Raises:
        InvalidInput: a share outside (0, 1].
    """
    if not all(0 < share <= 1 for share in (within, rows, tokens)):
        raise InvalidInput(
            f"down_sampled(within={within}, rows={rows}, tokens={tokens}); give shares above 0, at most 1"
        )

    def weigh(rollouts: Rollouts, view: View) -> F64:
        assert rollouts.entropy is not None
        advantage = group_norm(rollouts.reward, rollouts.group, len(rollouts.keys))
        spent = min(view.spent, 1.0)
        lots = np.array(
            [zlib.crc32(row[:length].tobytes()) for row, length in zip(rollouts.tokens, rollouts.length, strict=True)],
            np.int64,
        )
        kept: list[int] = []
        for g in range(len(rollouts.keys)):
            own = np.flatnonzero(rollouts.group == g)
            kept += own[most_varied(advantage[own], math.ceil(within * len(own)), lots[own])].tolist()
        first = np.array(sorted(kept), np.int64)
        most = math.ceil((rows + (1 - rows) * spent) * len(rollouts))
        chosen = first[most_varied(advantage[first], min(most, len(first)), lots[first])]
        signal = np.where(rollouts.sampled, np.abs(advantage)[:, None] * rollouts.entropy, -1.0)[chosen]
        some = np.flatnonzero(signal.ravel() >= 0)
        count = math.ceil((tokens + (1 - tokens) * spent) * len(some))
        row, place = np.divmod(some, max(signal.shape[1], 1))
        best = some[np.lexsort((place, lots[chosen][row], -signal.ravel()[some]))[:count]]
        mask = np.zeros(signal.size)
        mask[best] = int(rollouts.sampled.sum()) / max(count, 1)
        weight = np.zeros(rollouts.tokens.shape)
        weight[chosen] = mask.reshape(signal.shape)
        return weight

    return Importance(weigh, needs=(ENTROPY,))


def most_varied(values: F64, count: int, lots: I64) -> I64:
    """Indices of the ``count`` values [n], 0 <= count <= n, with the largest variance, ascending.

    Args:
        lots: [n] of equal values that with the smaller one stays.

    >>> most_varied(np.array([1.0, -0.5, 0.2, -0.6, 1.1]), 2, np.arange(5)).tolist()
    [3, 4]
    """
    down = np.lexsort((lots, -values))
    up = np.lexsort((lots, values))
    best, chosen = -1.0, down[:0]
    for top in range(count, -1, -1):
        large = down[:top]
        both = np.concatenate([large, up[~np.isin(up, large)][: count - top]])
        spread = float(values[both].var()) if count else 0.0
        if spread > best + 1e-12:
            best, chosen = spread, both
    return np.sort(chosen)
