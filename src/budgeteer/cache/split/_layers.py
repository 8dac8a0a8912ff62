"""The heads of all layers compete for all places.

Paper: "Taming the Fragility of KV Cache Eviction in LLM Inference" (its Layer-DefensiveKV), arXiv 2510.13334.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.cache.kit import compete
from budgeteer.cache.protocol import Groups, Split

if TYPE_CHECKING:
    from torch import Tensor


def layers() -> Split:
    """Give each head of each layer as many places as its entries win against those of all the others.

    Formula: the best size x heads x layers entries of a row by score, wherever they are.
    Helps when layers need very different numbers of entries, and their scores mean the same. All layers are held until
    the last one was read, so the peak is the full cache; a head that wins nothing keeps only what is protected.
    """
    return Split(_sizes, together=True)


def _sizes(groups: Groups) -> tuple[Tensor, ...]:
    places = [size * scores.shape[1] for scores, size in zip(groups.scores, groups.size, strict=True)]
    return compete(groups.scores, sum(places[1:], start=places[0]))
