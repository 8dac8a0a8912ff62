"""KVzip: what is read when the context is written once more.

Paper: "KVzip: Query-Agnostic KV Cache Compression with Context Reconstruction", arXiv 2505.23416.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.cache.kit import blocks, of_groups
from budgeteer.cache.protocol import Cells, Score
from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor


def kvzip(sinks: int = 4) -> Score:
    """Keep what any token of the context reads when the model sees the whole context a second time.

    Formula: score_i = max over the query heads of the group and over the queries of the second reading of a[h, q, i],
    softmax attention over the first reading and the second one so far.
    Helps when the questions come later: what it takes to write the context again serves any of them. A prompt is read
    twice, which takes three times as long or, if it is long, six times, and all layers are held until then. The paper
    asks the model in words to repeat the context before the second reading; a cache has no tokenizer, and here the
    context simply follows itself. Heads of all layers compete (``split=layers``, the default), or those of one
    (``split=ada-kv:safe=0``). Layers that slide cannot see the first reading, so that models with such layers are
    refused.

    Args:
        sinks: entries at the beginning that are always kept, >= 0.
    """
    if sinks < 0:
        raise InvalidInput(f"kvzip: sinks={sinks}; give 0 or more")
    return Score(_score, _observe, remembers=1, first=sinks, split="layers", replays=True)


def _observe(cells: Cells, memory: Tensor) -> Tensor:
    kv_heads = cells.keys.shape[1]
    for most in blocks(cells, lambda block: of_groups(block, kv_heads).amax(dim=(2, 3))):
        memory = memory.maximum(most[..., None])
    return memory


def _score(cells: Cells, memory: Tensor) -> Tensor:
    return memory[..., 0]
