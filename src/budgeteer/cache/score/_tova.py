"""TOVA: what the last query reads.

Paper: "Transformers are Multi-State RNNs", arXiv 2401.06104.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.cache.kit import attention, of_groups
from budgeteer.cache.protocol import Cells, Score

if TYPE_CHECKING:
    from torch import Tensor


def tova(every: int = 1) -> Score:
    """Keep what the newest query reads most; all heads of a layer keep the same entries.

    Formula: score_i = mean over query heads of a[h, last, i].
    Helps when importance moves with the text and is the same for all heads. The newest entry is always kept, which the
    paper leaves to its own attention.

    Args:
        every: 0 = choose after prompts only; k = after every k generated tokens, too.
    """
    return Score(_score, window=1, recent=1, every=every)


def _score(cells: Cells, memory: Tensor) -> Tensor:
    kv_heads, slots = cells.keys.shape[1], cells.slots.clamp(min=0).flatten(1)
    read = of_groups(attention(cells)[:, :, -1], kv_heads).sum(2) / cells.queries.shape[1]
    # by slot, since after a split over heads the n-th entry of one head is not that of another
    by_slot = read.new_zeros(read.shape[0], int(cells.query_slots[-1]) + 1)
    return by_slot.scatter_add_(1, slots, read.flatten(1)).gather(1, slots).reshape(read.shape)
