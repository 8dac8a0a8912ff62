"""Adamas: keys near the query, compared in 2 bits a channel after a Hadamard rotation.

Paper: "Adamas: Hadamard Sparse Attention for Efficient Long-Context Inference", arXiv 2510.18413.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.cache.kit import of_groups
from budgeteer.cache.packing import hadamard
from budgeteer.cache.protocol import Cells, Score
from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor


def adamas(recent: int = 1, every: int = 0) -> Score:
    """Read the entries whose keys lie nearest to the query, by the distance of coarse codes.

    Formula: q' = H q, k' = H k with the orthonormal Hadamard matrix; each channel becomes the number of thresholds
    (-s, 0, s) below it, 0 to 3, with s = the standard deviation of the rotated keys of the head, or of the query;
    distance = sum over channels of |code(q') - code(k')|, the least over the query heads of a group;
    s_i = -distance_i.
    Helps since codes take an eighth of a key in half precision, and the rotation leaves no channel that outweighs the
    others. The distance does not see how long a key is. Codes are made anew at each choice here; the paper's kernel
    holds them. All entries stay in cold memory (``rest=offload``, the default here). The paper reads the first two
    layers whole. The official code has one s for all heads of a layer and five thresholds (-2s to 2s, more than 2
    bits), or fixed ones of -10, 0 and 10.

    Args:
        recent: newest entries that are always read, >= 1.
        every: 0 = choose after prompts only; k = after every k generated tokens, too. It counts where entries are
            dropped (``rest=drop``); ``offload`` has its own.
    """
    if recent < 1:
        raise InvalidInput(f"adamas: recent={recent}; give recent >= 1")

    def score(cells: Cells, memory: Tensor) -> Tensor:
        keys, query = hadamard(cells.keys.float()), hadamard(cells.queries[:, :, -1].float())
        there = cells.valid[..., None]
        count = (there.sum((2, 3)) * keys.shape[-1]).clamp(min=1)
        mean = (keys * there).sum((2, 3)) / count
        spread = (((keys - mean[..., None, None]) * there).square().sum((2, 3)) / count).sqrt()
        theirs = _codes(keys, spread[..., None, None])[:, :, None]
        ours = of_groups(_codes(query, query.std(-1, correction=0, keepdim=True)), keys.shape[1])[:, :, :, None]
        return -(ours - theirs).abs().sum(-1).amin(2)

    return Score(score, window=1, recent=recent, every=every, rest="offload")


def _codes(numbers: Tensor, spread: Tensor) -> Tensor:
    """0 to 3: how many of the thresholds lie below each number."""
    return (numbers > -spread).float() + (numbers > 0).float() + (numbers > spread).float()
