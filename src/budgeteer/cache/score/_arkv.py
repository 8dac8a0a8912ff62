"""ARKV: what was read much or unevenly; the rest is held in fewer bits before it is dropped.

Paper: "ARKV: Adaptive and Resource-Efficient KV Cache Management under Limited Memory Budget for Long-Context Inference
in LLMs", arXiv 2603.08727.
"""

from __future__ import annotations

import torch
from torch import Tensor

from budgeteer.cache.kit import before, observers, of_groups, smoothed, summed
from budgeteer.cache.protocol import Cells, Score
from budgeteer.core.errors import InvalidInput

LEAST = 1e-8
"""Of the variance that a kurtosis is divided by; the official code's."""


def arkv(
    gamma: float = 0.5,
    window: int = 32,
    kernel: int = 5,
    every: int = 0,
    layers: bool = True,
    taus: tuple[float, float, float] = (7.774, 5.407, 5.528),
) -> Score:
    """Keep what the queries read on the mean, and what they read unevenly; quantise the next ones, drop the last.

    Formula: for entries i before the last ``window``: s_i = mean over the query heads of a group of
    mean_q a[h, q, i] + ``gamma`` var_q a[h, q, i], over all queries of the call (the variance with 1 / (n - 1), 0 for
    one query), then the mean over ``kernel`` neighbours.
    Layers hold equally many entries and differ in how many of them stay as they are, in proportion to E^(1 / tau_1)
    V^(1 / tau_2) K^(1 / tau_3): E = sum over h, q, i of -a ln a; V = sum over h, i of var_q a; K = sum over h, i of
    the kurtosis, mean_q (a - mean)^4 / max(mean_q (a - mean)^2, 1e-8)^2. The layer with the highest product holds all
    of its entries as they are.
    Helps where many entries matter a little. On SmolLM2-135M, with the code's taus, little is held in 8 bits, and
    ``layers=False`` loses less (docs/cache.md). Entries have three states under one budget of bytes
    (``rest="quantise:bits=8,full=0"``, the default here): as they are, in 8 bits, gone. The official code counts tokens
    and not bytes, has 8-bit floats with one scale a token (here ``rest="float8:full=0"``, one scale a head and token),
    divides by the highest product of the layers that were read
    so far and, while decoding, drops a quarter of all entries at a time.

    Args:
        gamma: weight of the variance, >= 0; the code's runs have 263.8, its class 0.5.
        window: newest entries that are always kept as they are, >= 1.
        kernel: neighbours of the mean, odd, >= 1.
        every: 0 = choose after prompts only; k = after every k generated tokens, too.
        layers: False = every layer holds the same share as it is, ``full`` of the rest (``rest=quantise:bits=8``).
        taus: tau_1 to tau_3, above 0; those of the code's runs on Llama 3 and Qwen3.
    """
    if gamma < 0 or window < 1 or kernel < 1 or kernel % 2 == 0:
        raise InvalidInput(
            f"arkv: gamma={gamma}, window={window}, kernel={kernel}; give gamma >= 0, a window >= 1 and an odd kernel"
        )
    if len(taus) != 3 or not all(tau > 0 for tau in taus):
        raise InvalidInput(f"arkv: taus={taus}; give three numbers above 0, such as taus=[7.8, 5.4, 5.5]")

    def score(cells: Cells, memory: Tensor) -> Tensor:
        mean, second = (_sums(cells)[:2] / observers(cells)[:, None, None]).unbind()
        read = of_groups(mean + gamma * _unbiased(cells, mean, second), cells.keys.shape[1]).mean(2)
        return smoothed((read * before(cells, window)).float(), kernel)

    def precision(cells: Cells) -> Tensor:
        entropy, variance, kurtosis = spread(cells)
        return entropy ** (1 / taus[0]) * variance ** (1 / taus[1]) * kurtosis ** (1 / taus[2])

    rest = "quantise:bits=8,full=0" if layers else "quantise:bits=8"
    return Score(score, recent=window, every=every, rest=rest, precision=precision if layers else None)


def spread(cells: Cells) -> tuple[Tensor, Tensor, Tensor]:
    """[B] each: E, V and K of :func:`arkv`, over all queries that are no padding."""
    sums = _sums(cells)
    mean, second, third, fourth = (sums[:4] / observers(cells)[:, None, None]).unbind()
    moment = fourth - 4 * mean * third + 6 * mean.square() * second - 3 * mean**4
    least = (second - mean.square()).clamp(min=LEAST)
    kurtosis = moment.clamp(min=0) / least.square()
    return sums[4].sum((1, 2)), _unbiased(cells, mean, second).sum((1, 2)), kurtosis.sum((1, 2))


def _unbiased(cells: Cells, mean: Tensor, second: Tensor) -> Tensor:
    """[B, H, n]: the variance over queries, of the means of what was read and of its square."""
    count = observers(cells)[:, None, None]
    return (second - mean.square()).clamp(min=0) * count / (count - 1).clamp(min=1)


def _sums(cells: Cells) -> Tensor:
    """[5, B, H, n] float64, sums over all queries of a, a^2, a^3, a^4 and -a ln a.

    In double precision, since central moments of what is read evenly are small differences of these.
    """

    def of(block: Tensor) -> Tensor:
        a = block.double()
        squared = a.square()
        powers = [a, squared, squared * a, squared.square()]
        return torch.stack([*(power.sum(2) for power in powers), torch.special.entr(a).sum(2)])

    return summed(cells, "arkv", of)
