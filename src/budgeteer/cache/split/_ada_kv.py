"""AdaKV: the heads of a layer compete for its places.

Paper: "Ada-KV: Optimizing KV Cache Eviction by Adaptive Budget Allocation", arXiv 2407.11550.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.cache.kit import compete, ranks
from budgeteer.cache.protocol import Groups, Split
from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor


def ada_kv(safe: float = 0.2) -> Split:
    """Give each head of a layer as many places as its entries win against those of the other heads.

    Formula: the best floor(safe x size) entries of each head are sure of a place; the best of all the others take what
    is left of size x heads.
    Helps when few heads read widely and the others read a handful of entries; scores of different heads have to mean
    the same, as attention does.

    Args:
        safe: share of the mean size that every head keeps, 0 to 1.
    """
    if not 0 <= safe <= 1:
        raise InvalidInput(f"ada-kv: safe={safe}; give a share from 0 to 1")

    def sizes(groups: Groups) -> tuple[Tensor, ...]:
        return tuple(
            compete([_secured(scores, (size * safe).long())], size * scores.shape[1])[0]
            for scores, size in zip(groups.scores, groups.size, strict=True)
        )

    return Split(sizes)


def _secured(scores: Tensor, sure: Tensor) -> Tensor:
    """The scores, with +inf for the first ``sure`` [B] entries of each head."""
    first = ranks(scores) < sure[:, None, None]
    return scores.masked_fill(first & (scores > float("-inf")), float("inf"))
