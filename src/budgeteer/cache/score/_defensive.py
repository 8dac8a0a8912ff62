"""DefensiveKV: the worst case over observers instead of their mean.

Paper: "Taming the Fragility of KV Cache Eviction in LLM Inference", arXiv 2510.13334.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.cache.kit import attention, before, observers, of_groups, ranks, smoothed
from budgeteer.cache.protocol import Cells, Score
from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor


def defensive(window: int = 32, kernel: int = 5, mass: float = 0.9, every: int = 0) -> Score:
    """Keep what any of the last queries read, in any head of the group, times how much its value moves the output.

    Formula, for prefix entries i (those before the window), with a the attention of the last ``window`` queries:

    1. smooth a over ``kernel`` neighbours, and scale each row back to its own sum;
    2. R_i = max over the group's heads and the queries of a; then R_i = max(R_i, mean over i of R);
    3. R_i = R_i n_i / (sum over key-value heads of n_i), n_i = mean over the group's heads of ||v_i W_O||_1;
    4. the most-read entries, as long as their sum of the mean attention is below ``mass`` less what the window holds of
       it, are worth as much as the best of the layer, as far as a head has places beside its window.

    Helps when what matters changes after the observed queries: an entry that one of them needed is not averaged away.
    Heads of a layer compete for its places (``split=ada-kv:safe=0``, the default); with ``split=layers`` all layers do,
    which the paper calls Layer-DefensiveKV. The official code takes step 4's share of the window from the last entries
    of the prefix instead, by a slice that was cut twice.

    Args:
        window: queries that are observed, >= 1; their entries are always kept.
        kernel: neighbours of the mean, odd, >= 1.
        mass: share of the attention that step 4 secures, 0 to 1; 0 = no such step.
        every: 0 = choose after prompts only; k = after every k generated tokens, too.
    """
    if window < 1 or kernel < 1 or kernel % 2 == 0 or not 0 <= mass <= 1:
        raise InvalidInput(
            f"defensive: window={window}, kernel={kernel}, mass={mass}; give a window >= 1, an odd kernel >= 1 and a "
            "mass from 0 to 1"
        )

    def score(cells: Cells, memory: Tensor) -> Tensor:
        kv_heads, prefix = cells.keys.shape[1], before(cells, window)
        whole = of_groups(attention(cells), kv_heads)  # [B, K, G, q, n]
        read = whole * prefix[:, :, None, None]
        base = read.sum(-1, keepdim=True)
        smooth = smoothed(read, kernel) * prefix[:, :, None, None]
        smooth = smooth / smooth.sum(-1, keepdim=True).clamp(min=1e-30) * base
        risk = smooth.amax(dim=(2, 3))
        entries = prefix.sum(-1, keepdim=True).clamp(min=1)
        risk = risk.clamp(min=risk.sum(-1, keepdim=True) / entries) * _moved(cells)
        mean = read.sum(dim=(2, 3)) / (observers(cells)[:, None, None] * read.shape[2])
        secured = _secured(mean, mass, (cells.size - window).clamp(min=0)) & prefix
        best = (risk * prefix).amax(dim=(1, 2), keepdim=True)
        return best.where(secured, risk)

    return Score(score, window=window, recent=window, every=every, split="ada-kv:safe=0")


def _moved(cells: Cells) -> Tensor:
    """[B, K, n]: the share of each head in the norms of v W_O of one token."""
    if cells.output is None:
        raise InvalidInput(
            "defensive needs the layer's output projection (a Linear named o_proj, dense or out_proj), and this "
            "model's attention has none; choose snapkv"
        )
    kv_heads = cells.keys.shape[1]
    group = cells.output.shape[0] // kv_heads
    norms = cells.values.new_zeros(cells.values.shape[:3]).float()
    for head in range(cells.output.shape[0]):  # head by head: v W_O of all heads at once would be large
        moved = cells.values[:, head // group].float() @ cells.output[head].float()
        norms[:, head // group] += moved.abs().sum(-1) / group
    return norms / norms.sum(1, keepdim=True).clamp(min=1e-30)


def _secured(mean: Tensor, mass: float, places: Tensor) -> Tensor:
    """[B, K, n]: the most-read entries whose sum is below ``mass``, the window's share counted; at most ``places``."""
    held = mean.sum(-1, keepdim=True)  # of the prefix; the window holds the rest of 1
    threshold = mass - (1 - held).mean(dim=(1, 2), keepdim=True)
    ordered = (mean / held.clamp(min=1e-30)).sort(dim=-1, descending=True).values
    count = (ordered.cumsum(-1) < threshold).sum(-1, keepdim=True).minimum(places[:, None, None])
    return ranks(mean) < count
