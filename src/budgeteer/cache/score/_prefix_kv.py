"""PrefixKV: entries that were read most, the same for all heads of a layer.

Paper: "PrefixKV: Adaptive Prefix KV Cache is What Vision Instruction-Following Models Need for Efficient Generation",
arXiv 2412.03409.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.cache.kit import of_groups, over_heads, read_in_all
from budgeteer.cache.protocol import Cells, Score
from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor


def prefix_kv(sinks: int = 4, every: int = 0) -> Score:
    """Keep what all queries so far read most, on the mean over the heads of the layer.

    Formula: s_i = mean over the query heads of the sum over all queries so far of a[h, q, i].
    Helps when layers differ and heads do not: the split ``prefix`` (the default here) gives each layer as many entries
    as it takes to hold the same share of its attention. The paper's name is for the beginning of the entries in the
    order of their importance, not of the text. While decoding, its code drops one entry at a fixed place (25 before the
    end of the prompt) for each new one; here all compete again every so many tokens.

    Args:
        sinks: entries at the beginning that are always kept, as is the newest; >= 0.
        every: 0 = choose after prompts only; k = after every k generated tokens, too.
    """
    if sinks < 0:
        raise InvalidInput(f"prefix-kv: sinks={sinks}; give 0 or more")
    return Score(_score, _observe, remembers=1, first=sinks, recent=1, every=every, split="prefix")


def _observe(cells: Cells, memory: Tensor) -> Tensor:
    return memory + over_heads(cells, of_groups(read_in_all(cells), cells.keys.shape[1]).mean(2))[..., None]


def _score(cells: Cells, memory: Tensor) -> Tensor:
    return memory[..., 0]
