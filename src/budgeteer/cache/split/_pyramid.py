"""PyramidKV: more for low layers, less for high ones.

Paper: "PyramidKV: Dynamic KV Cache Compression based on Pyramidal Information Funneling", arXiv 2406.02069.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.cache.protocol import Groups, Split
from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor


def pyramid(beta: float = 20.0) -> Split:
    """Let the sizes of the layers fall in a straight line from the first to the last; heads of a layer are equal.

    Formula, with L layers, a mean size s, m tokens and p that are protected: low = s / beta, high = 2 s - low;
    if high > m - p: high = m - p, low = 2 s - high. Layer l keeps high - l (high - low) / (L - 1), rounded such that
    layers l and L - 1 - l together keep 2 s. Where low < p the line does not fit, and every layer keeps s.
    Helps when low layers read widely and high ones read little.

    Args:
        beta: how steep the line is, >= 1; 1 = all layers equal.
    """
    if not beta >= 1:
        raise InvalidInput(f"pyramid: beta={beta}; give a number >= 1")

    def sizes(groups: Groups) -> tuple[Tensor, ...]:
        kept = []
        for place, (scores, size) in enumerate(zip(groups.scores, groups.size, strict=True)):
            has = (scores > float("-inf")).sum(-1)
            must = (scores == float("inf")).sum(-1)
            most = groups.tokens[place] - must.amax(1)
            line = _line(groups.layer + place, groups.layers, size, most, must.amax(1), beta)
            kept.append(has.minimum(line[:, None]))
        return tuple(kept)

    return Split(sizes)


def _line(layer: int, layers: int, size: Tensor, most: Tensor, must: Tensor, beta: float) -> Tensor:
    """[B] int64: the size of a layer."""
    mirrored = layer >= (layers + 1) // 2
    place = layers - 1 - layer if mirrored else layer
    mean = size.double()
    high = (2 * mean - mean / beta).minimum(most.double())
    low = 2 * mean - high
    step = (high - low) / max(layers - 1, 1)
    up = (high - place * step).round().long()
    if 2 * place == layers - 1:  # the middle of an odd number of layers
        up = size
    fits = (high >= low) & (low >= must)
    return (2 * size - up if mirrored else up).where(fits, size)
