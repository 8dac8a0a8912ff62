"""GUI-KV: prompts with several screenshots, of which the newest matters and the earlier ones repeat.

Paper: "GUI-KV: Efficient GUI Agents via KV Cache with Spatio-Temporal Awareness", arXiv 2510.00536.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from budgeteer.cache.kit import attention, before, of_groups, ranks, smoothed, standard
from budgeteer.cache.protocol import Cells, Score
from budgeteer.core.errors import InvalidInput


def gui_kv(
    images: Sequence[Sequence[int]] = (),
    window: int = 32,
    kernel: int = 5,
    alpha: float = 0.1,
    temperature: float = 1.0,
    rank: int = 32,
) -> Score:
    """Keep what the last queries read; add what stands out in the newest screenshot; drop what it shows again.

    Formula, for entries before the last ``window``:

    1. s_i = mean over the group's heads of the sum over the last ``window`` queries of a[h, q, i], then the mean over
       ``kernel`` neighbours;
    2. in the newest screenshot s_i += ``alpha`` x softmax over its entries of (x_i - mean) / (std x ``temperature``),
       x_i the L2 norm of what the layer's attention is given for token i;
    3. for a key k of an earlier screenshot, r = the length of its part outside of the ``rank`` main directions of the
       newest screenshot's keys (uncentred); of all these entries the share that the budget drops, those with the
       smallest r, get s_i = 0.

    Helps agents that look at a screen again and again. Without screenshots, or with one and ``alpha=0``, it is
    ``snapkv``. The official code takes the first 32 keys of the newest screenshot for its directions (a QR without
    pivoting) and keeps query heads apart, which holds each entry once for every head of a group.

    Args:
        images: first slot of each screenshot and the slot after its last, in their order: ``[[4,260],[290,546]]``;
            padding counts.
        window: queries that are observed, >= 1; their entries are always kept.
        kernel: neighbours of the mean, odd, >= 1.
        alpha: weight of what stands out, >= 0.
        temperature: of step 2, > 0; higher = more even.
        rank: directions of step 3, >= 1.
    """
    if window < 1 or kernel < 1 or kernel % 2 == 0 or alpha < 0 or temperature <= 0 or rank < 1:
        raise InvalidInput(
            f"gui-kv: window={window}, kernel={kernel}, alpha={alpha}, temperature={temperature}, rank={rank}; give "
            "window and rank >= 1, an odd kernel, alpha >= 0 and a temperature > 0"
        )
    spans = [tuple(image) if isinstance(image, Sequence) else () for image in images]
    ends = [0, *(slot for span in spans for slot in span)]
    if (
        any(len(span) != 2 for span in spans)
        or any(type(slot) is not int for slot in ends)
        or ends != sorted(ends)
        or any(span[0] == span[1] for span in spans)
    ):
        raise InvalidInput(
            f"gui-kv: images={images}; give first slot and end of each in order: images=[[4,20],[30,46]]"
        )

    def score(cells: Cells, memory: Tensor) -> Tensor:
        read = of_groups(attention(cells).sum(2), cells.keys.shape[1]) * before(cells, window)[:, :, None]
        found = smoothed(read, kernel).mean(2)
        if not spans:
            return found
        newest = _inside(cells, *spans[-1])
        stands_out = standard(memory[..., 0], newest, (2,)) / temperature
        found = found + alpha * torch.softmax(stands_out.masked_fill(~newest, float("-inf")), dim=-1).nan_to_num(0.0)
        earlier = torch.stack([_inside(cells, *span) for span in spans]).any(0) & ~newest
        outside = _outside(cells, newest, rank).masked_fill(~earlier, float("inf"))
        dropped = 1 - cells.size[:, None] / cells.valid.sum(-1).clamp(min=1)
        count = (dropped.clamp(min=0) * earlier.sum(-1)).long()
        return found.masked_fill(earlier & (ranks(-outside) < count[..., None]), 0.0)

    return Score(score, _observe, remembers=1, window=window, recent=window, hidden=True)


def _observe(cells: Cells, memory: Tensor) -> Tensor:
    """The norms of what the attention was given, for the new entries."""
    assert cells.hidden is not None  # Score.hidden
    memory = memory.clone()
    memory[:, :, -cells.hidden.shape[1] :, 0] = torch.linalg.vector_norm(cells.hidden.float(), dim=-1)[:, None]
    return memory


def _inside(cells: Cells, start: int, stop: int) -> Tensor:
    """[B, K, n]: the entries of a screenshot."""
    return cells.valid & (cells.slots >= start) & (cells.slots < stop)


def _outside(cells: Cells, newest: Tensor, rank: int) -> Tensor:
    """[B, K, n]: the length of each key's part outside of the main directions of some of them."""
    keys = cells.keys.double()
    some = keys * newest[..., None]
    sizes, directions = torch.linalg.eigh(some.transpose(-1, -2) @ some)  # ascending
    main = sizes > 1e-9 * sizes[..., -1:]
    main[..., : max(keys.shape[-1] - rank, 0)] = False
    inside = (keys @ (directions * main[..., None, :])).square().sum(-1)
    outside: Tensor = (keys.square().sum(-1) - inside).clamp(min=0).sqrt()
    return outside
