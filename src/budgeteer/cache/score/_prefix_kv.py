"""PrefixKV: entries that were read most, the same for all heads of a layer.

Paper: "PrefixKV: Adaptive Prefix KV Cache is What Vision Instruction-Following Models Need for Efficient Generation",
arXiv 2412.03409.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from budgeteer.cache.kit import of_groups, over_heads, ranks, read_in_all
from budgeteer.cache.protocol import Cells, Score
from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor


def prefix_kv(sinks: int = 4, every: int = 0, distance: int = 0) -> Score:
    """Keep what all queries so far read most, on the mean over the heads of the layer.

    Formula: s_i = mean over the query heads of the sum over all queries so far of a[h, q, i].
    Helps when layers differ and heads do not: the split ``prefix`` (the default here) gives each layer as many entries
    as it takes to hold the same share of its attention. The paper's name is for the beginning of the entries in the
    order of their importance, not of the text.

    While decoding, all entries compete again every so many tokens, by what has been read until then. The paper's code
    has another rule, which ``every=1,distance=25`` is: of the m entries that a layer kept of the prompt the first
    m - 25 (half of them, rounded down, where that is less than 1) stay, the others and what is generated leave in the
    order of the text, and the layer keeps its share of the budget. Its code drops one entry a token, always the one
    with that index, which is the same, but for a layer so small that this is one of the first ``sinks``: here these
    stay. A share of the text is rounded down here and up there.

    Args:
        sinks: entries at the beginning that are always kept, as is the newest; >= 0.
        every: 0 = choose after prompts only; k = after every k generated tokens, too.
        distance: with ``every``: 0 = all compete again; d >= 1 = the paper's rule, with the d last entries of the
            prompt in the queue.

    Raises:
        InvalidInput: ``sinks`` or ``distance`` is negative, or ``distance`` is given without ``every``.
    """
    if sinks < 0:
        raise InvalidInput(f"prefix-kv: sinks={sinks}; give 0 or more")
    if distance < 0 or (distance and not every):
        raise InvalidInput(
            f"prefix-kv: distance={distance}, every={every}; give distance=25 and every=1 for the paper's rule while "
            "decoding, or leave out distance"
        )
    if not distance:
        return Score(_score, _observe, remembers=1, first=sinks, recent=1, every=every, split="prefix")

    def observe(cells: Cells, memory: Tensor) -> Tensor:
        return torch.cat(
            [_observe(cells, memory[..., :1]), _held(cells, memory[..., 1], sinks, distance)[..., None]], dim=-1
        )

    return Score(_queued, observe, remembers=2, first=sinks, recent=1, every=every, split="prefix")


def _observe(cells: Cells, memory: Tensor) -> Tensor:
    return memory + over_heads(cells, of_groups(read_in_all(cells), cells.keys.shape[1]).mean(2))[..., None]


def _score(cells: Cells, memory: Tensor) -> Tensor:
    return memory[..., 0]


def _held(cells: Cells, before: Tensor, sinks: int, distance: int) -> Tensor:
    """[B, K, n]: for entries that stay while tokens are generated, the share of the budget that their layer kept.

    0 for the others. After a prompt it is less the size of the budget, for all entries, since only the next call sees
    how many of them the layer kept.
    """
    if cells.queries.shape[2] > 1:
        return -cells.size[:, None, None].expand_as(before).to(before)
    size = -before.amin(-1, keepdim=True)
    kept = cells.valid.sum(-1, keepdim=True) - 1  # the new one
    stay = torch.where(kept - distance >= 1, kept - distance, kept // 2).clamp(min=max(sinks, 1))
    first = cells.valid & (cells.valid.long().cumsum(-1) <= stay)
    return torch.where(size > 0, first * kept / size.clamp(min=1), before)


def _queued(cells: Cells, memory: Tensor) -> Tensor:
    """After prompts what was read; while decoding, entries that stay before the others, of these the newest first.

    As many as the layer is to hold are worth the same, the others nothing, up to what tells their order: so the split
    ``prefix`` finds the sizes that the layers had after the prompt.
    """
    if cells.queries.shape[2] > 1:
        return memory[..., 0]
    share = memory[..., 1].clamp(min=0)
    order = cells.slots.double() + (share > 0) * float(cells.query_slots[-1] + 1)
    place = ranks(order.masked_fill(~cells.valid, -1.0))
    inside = place < (share.amax(-1, keepdim=True) * cells.size[:, None, None]).round()
    return inside.double() - place * 1e-9
