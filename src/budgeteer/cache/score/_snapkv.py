"""SnapKV: what the end of the prompt reads.

Paper: "SnapKV: LLM Knows What You are Looking for Before Generation", arXiv 2404.14469.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.cache.kit import attention, before, observers, of_groups, smoothed
from budgeteer.cache.protocol import Cells, Score
from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor


def snapkv(window: int = 32, kernel: int = 5, every: int = 0) -> Score:
    """Keep what the last queries read on the mean, smoothed over neighbours, and the last entries themselves.

    Formula: s_i = mean over the query heads of a group and over the last ``window`` queries of a[h, q, i], then the
    mean over ``kernel`` neighbours; a is softmax attention with the window's own entries in its sum.
    Helps when the prompt ends with the question. When the question comes after the choice, it keeps what the end of the
    context happened to look at.

    Args:
        window: queries that are observed, >= 1; their entries are always kept.
        kernel: neighbours of the mean, odd, >= 1.
        every: 0 = choose after prompts only; k = after every k generated tokens, too.
    """
    if window < 1 or kernel < 1 or kernel % 2 == 0:
        raise InvalidInput(f"snapkv: window={window}, kernel={kernel}; give a window >= 1 and an odd kernel >= 1")

    def score(cells: Cells, memory: Tensor) -> Tensor:
        read = attention(cells).sum(2) / observers(cells)[:, None, None]
        read = of_groups(read, cells.keys.shape[1]) * before(cells, window)[:, :, None]
        return smoothed(read, kernel).mean(2)

    return Score(score, window=window, recent=window, every=every)
