"""Attention of one query over heads of unequal lengths on a GPU, where their entries lie; needs Triton.

Without it torch's attention reads a rectangle, which has to be filled anew for every token. Each head's entries are cut
into parts that are read side by side; what they found is put together at the end (Flash-Decoding). With
``TRITON_INTERPRET=1`` in the environment Triton computes the same on the CPU, slowly, which is how it is tested.
"""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from budgeteer.cache.storage import Ragged

HELD = 8192
"""Numbers of keys, and of values, that one program holds, in registers: so many entries of a head are a part."""
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def takes(queries: Tensor) -> bool:
    """Whether :func:`decode` is for queries of this device and type."""
    return (queries.is_cuda or INTERPRETED) and queries.dtype in (torch.float32, torch.float16, torch.bfloat16)


def decode(queries: Tensor, storage: Ragged, scaling: float) -> Tensor:
    """softmax(scaling q.k) v over the entries of the head's key-value head, chosen ones and those since.

    Args:
        queries: [B, H, d].
        storage: what was chosen, and at least one entry that came since.
        scaling: of the products.

    Returns:
        [B, H, d of values], of the queries' type; sums are of float32.
    """
    rows, heads, width = queries.shape
    kv_heads, wide = storage.lengths.shape[1], storage.flat["values"].shape[1]
    keys, values = triton.next_power_of_2(width), triton.next_power_of_2(wide)
    part = HELD // max(keys, values)
    cells, group, parts = rows * kv_heads, heads // kv_heads, triton.cdiv(storage.longest + storage.since, part)
    best = queries.new_empty(cells, parts, group, dtype=torch.float32)
    total, read = torch.empty_like(best), queries.new_empty(cells, parts, group, wide, dtype=torch.float32)
    _part[(cells, parts)](
        queries.contiguous(), storage.flat["keys"], storage.flat["values"], storage.ends,
        storage.tail["keys"].contiguous(), storage.tail["values"].contiguous(), best, total, read, scaling,
        storage.since, group, width, wide, keys, values, part,
    )  # fmt: skip
    weight = (best - best.amax(1, keepdim=True)).exp()  # 0 for a part behind a head's last entry
    out = (weight[..., None] * read).sum(1) / (weight * total).sum(1)[..., None]
    return out.reshape(rows, heads, wide).to(queries.dtype)


@triton.jit  # type: ignore[untyped-decorator]
def _part(  # type: ignore[no-untyped-def]
    query, keys, values, ends, tail_keys, tail_values, best, total, read, scaling, since,
    GROUP: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
    PART: tl.constexpr,
):  # fmt: skip
    """What the queries of one head read in one part: the largest logit, the sum of exp(logit - it), and values."""
    cell, part = tl.program_id(0), tl.program_id(1)
    end = tl.load(ends + cell)
    first = tl.load(ends + cell - 1, mask=cell > 0, other=0)
    old = end - first
    i = part * PART + tl.arange(0, PART)
    chosen, there = (i < old)[:, None], i < old + since
    new = there[:, None] & (i >= old)[:, None]
    d, e = tl.arange(0, KEYS)[None, :], tl.arange(0, VALUES)[None, :]
    at, behind = (first + i)[:, None], (cell * since + i - old)[:, None]
    key = tl.load(keys + at * WIDTH + d, mask=chosen & (d < WIDTH), other=0).to(tl.float32)
    key += tl.load(tail_keys + behind * WIDTH + d, mask=new & (d < WIDTH), other=0).to(tl.float32)
    value = tl.load(values + at * WIDE + e, mask=chosen & (e < WIDE), other=0).to(tl.float32)
    value += tl.load(tail_values + behind * WIDE + e, mask=new & (e < WIDE), other=0).to(tl.float32)
    for g in tl.static_range(GROUP):
        asked = tl.load(query + (cell * GROUP + g) * WIDTH + d, mask=d < WIDTH, other=0).to(tl.float32)
        logit = tl.where(there, tl.sum(asked * key, 1) * scaling, -float("inf"))
        most = tl.max(logit, 0)
        share = tl.exp(logit - tl.maximum(most, -1e30))  # 0 everywhere in a part behind the last entry
        to = (cell * tl.num_programs(1) + part) * GROUP + g
        tl.store(best + to, most)
        tl.store(total + to, tl.sum(share, 0))
        tl.store(read + to * WIDE + e, tl.sum(share[:, None] * value, 0)[None, :], mask=e < WIDE)
