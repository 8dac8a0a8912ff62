"""What scores and splits share: attention of the observed queries, groups of heads, ranks, competition for places."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

from budgeteer.cache.protocol import Cells
from budgeteer.core.errors import MissingExtra

try:
    import torch
    from torch import Tensor
    from torch.nn import functional
except ImportError as error:
    raise MissingExtra("torch", "hf") from error

BLOCK = 128
"""Queries whose attention is computed at a time, so that n x n probabilities never stand in memory."""


def attention(cells: Cells, start: int = 0, stop: int | None = None) -> Tensor:
    """What queries start..stop read of each entry: softmax over the entries that each of them sees.

    Formula: a[h, q, i] = softmax over i of scaling q.k_i, over valid entries of slots <= that of the query, and within
    the window of a sliding layer. Queries that are padding read nothing. A learnt logit of the head (``Cells.sink``)
    takes part in the softmax, and what it gets is read of no entry.

    Returns:
        [B, H, queries, n] float32; rows sum to 1, to less with a learnt logit, or to 0 for padding.
    """
    return _behind(_read(cells, start, stop), cells)


def blocks(cells: Cells, of: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """A function of the :func:`attention` of all observed queries, a block of them at a time.

    Args:
        cells: of a layer.
        of: ``(attention [B, H, queries, m]) -> [..., m]``, 0 for entries that are not read. The first m entries are
            those that the block can see.

    Yields:
        [..., n] of each block.
    """
    for start in range(0, cells.queries.shape[2], BLOCK):
        yield _behind(of(_read(cells, start, start + BLOCK)), cells)


def summed(cells: Cells, name: str, of: Callable[[Tensor], Tensor]) -> Tensor:
    """The sum over the :func:`blocks` of a function of the attention, of all observed queries.

    Caches that are filled from one prefill share it: only the first of them computes it.

    Args:
        cells: of a layer.
        name: of the function, by which caches share its sum.
        of: as :func:`blocks` has it; it depends on the attention alone.
    """

    def compute() -> Tensor:
        return functools.reduce(torch.add, blocks(cells, of))

    return compute() if cells.known is None else cells.known.of(cells.layer, name, compute)


def read_in_all(cells: Cells) -> Tensor:
    """[B, H, n]: the sum of what all observed queries read of each entry."""
    return summed(cells, "read", lambda block: block.sum(2))


def _behind(read: Tensor, cells: Cells) -> Tensor:
    """[..., n] of [..., m]: zeros for the entries behind the first m."""
    more = cells.keys.shape[2] - read.shape[-1]
    return functional.pad(read, (0, more)) if more else read


def _read(cells: Cells, start: int, stop: int | None) -> Tensor:
    """[B, H, queries, m]: :func:`attention` over the entries that are no newer than all of these queries."""
    slots, known = cells.query_slots[start:stop], cells.query_valid[:, start:stop]
    old = (cells.slots <= slots[-1]).flatten(0, 1).any(0).nonzero()
    most = int(old[-1]) + 1 if len(old) else 0
    where, keys = cells.slots[:, :, None, :most], cells.keys[:, :, :most].float()
    queries = cells.queries[:, :, start:stop].float() * cells.scaling
    rows, heads, asked, width = queries.shape
    kv_heads = keys.shape[1]
    logits = queries.reshape(rows, kv_heads, -1, width) @ keys.transpose(-1, -2)
    logits = logits.reshape(rows, kv_heads, heads // kv_heads, asked, most)
    if cells.softcap is not None:
        logits = cells.softcap * torch.tanh(logits / cells.softcap)
    seen = (where <= slots[:, None]) & cells.valid[:, :, None, :most]
    if cells.window is not None:
        seen &= where > slots[:, None] - cells.window
    logits = logits.masked_fill_(~seen[:, :, None], float("-inf"))
    if cells.sink is not None:
        sink = cells.sink.to(queries).reshape(1, kv_heads, -1, 1, 1)
        logits = torch.cat([logits, sink.expand(*logits.shape[:-1], 1)], dim=-1)
    read = torch.softmax(logits, dim=-1)[..., :most]
    reads = seen.any(-1) & known[:, None]
    if not bool(reads.all()):  # the softmax over nothing is no number
        read = read.masked_fill(~reads[:, :, None, :, None], 0.0)
    return read.reshape(rows, heads, asked, most)


def observers(cells: Cells) -> Tensor:
    """[B] float32: how many of the observed queries are no padding, at least 1."""
    return cells.query_valid.sum(-1).clamp(min=1).float()


def of_groups(heads: Tensor, kv_heads: int) -> Tensor:
    """[B, H, ...] as [B, K, H / K, ...]: the query heads of each key-value head."""
    return heads.reshape(heads.shape[0], kv_heads, -1, *heads.shape[2:])


def before(cells: Cells, recent: int) -> Tensor:
    """[B, K, n]: the valid entries that are not among the newest ``recent`` slots."""
    return cells.valid & (cells.slots <= cells.query_slots[-1] - recent)


def behind(cells: Cells, sinks: int) -> Tensor:
    """[B, K, n]: the valid entries but the first ``sinks`` of the text, which a sliding layer forgets."""
    slid = cells.window is not None and int(cells.query_slots[-1]) >= cells.window
    return cells.valid & (cells.valid.long().cumsum(-1) > (0 if slid else sinks))


def places(slots: Tensor, valid: Tensor) -> Tensor:
    """[B, K, n]: slots counted from the row's first entry, so that padding before it moves nothing; 0 before that."""
    first = slots.masked_fill(~valid, torch.iinfo(slots.dtype).max).amin((1, 2), keepdim=True)
    return (slots - first).clamp(min=0)


def smoothed(scores: Tensor, kernel: int) -> Tensor:
    """The mean over ``kernel`` neighbouring entries, zeros beyond the ends; [..., n]."""
    flat = scores.reshape(-1, 1, scores.shape[-1])
    return functional.avg_pool1d(flat, kernel, stride=1, padding=kernel // 2).reshape(scores.shape)


def turned(vectors: Tensor, steps: Tensor, frequencies: Tensor) -> Tensor:
    """Vectors [..., q, d] rotated on by ``steps`` [q] or [..., q] positions; ``frequencies`` [r / 2], d >= r.

    Numbers i and i + r / 2 of a vector are a pair, which turns by steps x frequency; those from r on stay.
    """
    angle = steps[..., None].double() * frequencies.double()
    cos, sin = angle.cos().to(vectors.dtype), angle.sin().to(vectors.dtype)
    half = frequencies.shape[0]
    a, b = vectors[..., :half], vectors[..., half : 2 * half]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, vectors[..., 2 * half :]], dim=-1)


def standard(scores: Tensor, there: Tensor, over: tuple[int, ...]) -> Tensor:
    """Less their mean over some dimensions, over their standard deviation there (divisor: the number less 1).

    Args:
        scores: any shape.
        there: which of them count, of a shape that fits.
        over: dimensions of which one mean is taken.
    """
    there = there.expand(scores.shape)
    count = there.sum(over, keepdim=True)
    mean = scores.masked_fill(~there, 0.0).sum(over, keepdim=True) / count.clamp(min=1)
    apart = ((scores - mean) ** 2).masked_fill(~there, 0.0).sum(over, keepdim=True) / (count - 1).clamp(min=1)
    return (scores - mean) / apart.sqrt().clamp(min=1e-6)


def over_heads(cells: Cells, scores: Tensor) -> Tensor:
    """The mean of [B, K, n] over heads, by slot, since after a split the n-th entry of one head is not that of another.

    A head that does not hold a slot counts as 0 there; what stands where no entry is counts nowhere.
    """
    slots = cells.slots.clamp(min=0).flatten(1)
    by_slot = scores.new_zeros(scores.shape[0], int(cells.query_slots[-1]) + 1)
    by_slot = by_slot.scatter_add_(1, slots, scores.masked_fill(~cells.valid, 0.0).flatten(1))
    return by_slot.gather(1, slots).reshape(scores.shape) / scores.shape[1]


def ranks(scores: Tensor) -> Tensor:
    """The rank of each score in the last dimension: 0 = the highest; ties are won by the earlier one."""
    return scores.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)


def compete(scores: Sequence[Tensor], total: Tensor) -> tuple[Tensor, ...]:
    """The sizes of heads when their entries compete for ``total`` places a row: each has as many as it wins.

    Ties are won by the earlier layer, head and entry.

    Args:
        scores: for each layer [B, K, n]; -inf never wins.
        total: [B] int64 places.

    Returns:
        For each layer [B, K] int64.
    """
    flat = torch.cat([layer.flatten(1) for layer in scores], dim=1)
    won = (ranks(flat) < total[:, None]) & (flat > float("-inf"))
    parts = torch.split(won, [layer[0].numel() for layer in scores], dim=1)
    return tuple(part.reshape(layer.shape).sum(-1) for part, layer in zip(parts, scores, strict=True))
