"""StreamingLLM: the first entries and the newest ones.

Paper: "Efficient Streaming Language Models with Attention Sinks", arXiv 2309.17453.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.cache.protocol import Cells, Score

if TYPE_CHECKING:
    from torch import Tensor


def streaming_llm(sinks: int = 4, every: int = 1) -> Score:
    """Keep the first entries, on which softmax dumps what it has no use for, and the newest ones.

    Formula: score = slot; the first ``sinks`` entries are always kept.
    Helps when a stream is longer than memory and only its end matters; whatever was in the middle is lost. Keys keep
    their true positions; the paper numbers them anew by their place in the cache.

    Args:
        sinks: entries at the beginning that are always kept, >= 0.
        every: 0 = choose after prompts only; k = after every k generated tokens, too.
    """
    return Score(_score, first=sinks, every=every)


def _score(cells: Cells, memory: Tensor) -> Tensor:
    return cells.slots.double()
