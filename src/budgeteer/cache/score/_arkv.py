"""ARKV: what was read much or unevenly; the rest is held in fewer bits before it is dropped.

Paper: "ARKV: Adaptive and Resource-Efficient KV Cache Management under Limited Memory Budget for Long-Context Inference
in LLMs", arXiv 2603.08727.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from budgeteer.cache.kit import before, blocks, observers, of_groups, smoothed
from budgeteer.cache.protocol import Cells, Score
from budgeteer.core.errors import InvalidInput


def arkv(gamma: float = 0.5, window: int = 32, kernel: int = 5, every: int = 0) -> Score:
    """Keep what the queries read on the mean, and what they read unevenly; quantise the next ones, drop the last.

    Formula: for entries i before the last ``window``: s_i = mean over the query heads of a group of
    mean_q a[h, q, i] + ``gamma`` var_q a[h, q, i], over all queries of the call (the variance with 1 / (n - 1), 0 for
    one query), then the mean over ``kernel`` neighbours.
    Helps where many entries matter a little. Entries have three states under one budget (``rest=quantise:bits=8``, the
    default here): as they are, in 8 bits, gone. The official code has 8-bit floats with one scale a token, and lets
    layers differ in how many entries stay as they are, by the entropy, variance and kurtosis of their attention; here
    that share is the same in all layers.

    Args:
        gamma: weight of the variance, >= 0.
        window: newest entries that are always kept as they are, >= 1.
        kernel: neighbours of the mean, odd, >= 1.
        every: 0 = choose after prompts only; k = after every k generated tokens, too.
    """
    if gamma < 0 or window < 1 or kernel < 1 or kernel % 2 == 0:
        raise InvalidInput(
            f"arkv: gamma={gamma}, window={window}, kernel={kernel}; give gamma >= 0, a window >= 1 and an odd kernel"
        )

    def score(cells: Cells, memory: Tensor) -> Tensor:
        sums = blocks(cells, lambda block: torch.stack([block.sum(2), block.square().sum(2)]))
        first, second = functools.reduce(torch.add, sums)
        count = observers(cells)[:, None, None]
        mean = first / count
        variance = (second - count * mean.square()).clamp(min=0) / (count - 1).clamp(min=1)
        read = of_groups(mean + gamma * variance, cells.keys.shape[1]).mean(2)
        return smoothed(read * before(cells, window), kernel)

    return Score(score, recent=window, every=every, rest="quantise:bits=8")
