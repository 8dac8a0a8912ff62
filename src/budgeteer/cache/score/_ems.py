"""EMS: entries that were read much by all queries or by the last ones.

Paper: "EMS: Adaptive Evict-then-Merge Strategy for Head-wise KV Cache Compression Based on Global-Local Importance",
arXiv 2412.08521.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.cache.kit import attention, before, observers, of_groups, read_in_all
from budgeteer.cache.protocol import Cells, Score
from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor


def ems(window: int = 32, every: int = 0) -> Score:
    """Keep what all queries so far or the last ones read most, both brought to the same mean; merge the rest.

    Formula: g_i = mean over the group's heads of the sum of a[h, q, i] over all queries so far, l_i the same over the
    last ``window`` queries, divided by their number; means over the entries before the window;
    s_i = max(l_i, g_i mean(l) / mean(g)).
    Helps since the sum over all queries favours early entries and the last queries favour late ones. Which of the two
    sides is scaled, the abstract leaves open. What is dropped is merged (``rest=merge``, the default here).

    Args:
        window: queries that are observed for l, >= 1; their entries are always kept.
        every: 0 = choose after prompts only; k = after every k generated tokens, too.
    """
    if window < 1:
        raise InvalidInput(f"ems: window={window}; give a window >= 1")

    def score(cells: Cells, memory: Tensor) -> Tensor:
        prefix, kv_heads = before(cells, window), cells.keys.shape[1]
        local = of_groups(attention(cells).sum(2) / observers(cells)[:, None, None], kv_heads).mean(2) * prefix
        whole = memory[..., 0] * prefix
        scale = local.sum(-1, keepdim=True) / whole.sum(-1, keepdim=True).clamp(min=1e-30)
        return local.maximum(whole * scale)

    return Score(score, _observe, remembers=1, window=window, recent=window, every=every, rest="merge")


def _observe(cells: Cells, memory: Tensor) -> Tensor:
    return memory + of_groups(read_in_all(cells), cells.keys.shape[1]).mean(2)[..., None]
