"""TOVA: what the last query reads.

Paper: "Transformers are Multi-State RNNs", arXiv 2401.06104.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.cache.kit import attention, of_groups, over_heads
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
    return over_heads(cells, of_groups(attention(cells)[:, :, -1], cells.keys.shape[1]).mean(2))
