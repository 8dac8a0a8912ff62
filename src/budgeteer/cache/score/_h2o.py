"""H2O: entries that were read most so far, and the newest ones.

Paper: "H_2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models", arXiv 2306.14048.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.cache.kit import of_groups, read_in_all
from budgeteer.cache.protocol import Cells, Score
from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor


def h2o(recent_share: float = 0.5, every: int = 1) -> Score:
    """Keep the heavy hitters: what all queries so far read most, with the newest entries.

    Formula: s_i = sum over all queries q so far of a[h, q, i], in float32; with grouped queries the mean over the group
    (the official code needs as many key-value heads as query heads). An entry keeps its sum while it is in the cache.
    Helps when importance is stable over the text. The sum favours early entries, which more queries have read.

    Args:
        recent_share: part of what a head keeps that goes to the newest entries, 0 to 1; the paper has a half.
        every: 0 = choose after prompts only; k = after every k generated tokens, too.
    """
    if not 0 <= recent_share <= 1:
        raise InvalidInput(f"h2o: recent_share={recent_share}; give a share from 0 to 1")
    return Score(_score, _observe, remembers=1, recent_share=recent_share, every=every)


def _observe(cells: Cells, memory: Tensor) -> Tensor:
    return memory + of_groups(read_in_all(cells), cells.keys.shape[1]).mean(2)[..., None]


def _score(cells: Cells, memory: Tensor) -> Tensor:
    return memory[..., 0]
