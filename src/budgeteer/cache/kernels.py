"""Compiled attention of one query over heads of unequal lengths, where their entries lie; needs numba.

torch's attention wants a rectangle, which would have to be filled anew for every token: that took half of the time of a
decoding step at 2,000 entries a head.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from numba import config, njit, prange

from budgeteer.engine.kernels import OPTIONS, exp_inplace


def follow_torch() -> None:
    """Have the kernels use as many threads as torch does in this thread, and torch go on as it was.

    Starting numba's threads sets OpenMP's number, which is torch's, too: one thread became all of them, which wait for
    work by spinning, so that every token cost twice the CPU time.
    """
    threads = torch.get_num_threads()
    if (wanted := min(threads, config.NUMBA_NUM_THREADS)) != numba.get_num_threads():  # type: ignore[attr-defined]
        numba.set_num_threads(wanted)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@njit(parallel=True, **OPTIONS)
def decode(query, keys, values, ends, tail_keys, tail_values, scaling, out):  # type: ignore[no-untyped-def]
    """out[b, h] := softmax(scaling q.k) v over the entries of the head's key-value head, chosen ones and those since.

    Args:
        query: [B, H, d] float32.
        keys, values: [N, d] and [N, e] float32, the chosen entries of the heads of all rows one behind the other.
        ends: [B K] int64, where the entries of each head end.
        tail_keys, tail_values: [B, K, since, d] and [B, K, since, e] float32, at least one entry.
        scaling: of the products.
        out: [B, H, e] float32, written.
    """
    rows, kv_heads, since, width = tail_keys.shape
    group, wide = query.shape[1] // kv_heads, out.shape[2]
    scale = np.float32(scaling)
    for cell in prange(rows * kv_heads):
        b, k = cell // kv_heads, cell % kv_heads
        first = ends[cell - 1] if cell else 0
        old = ends[cell] - first
        n = old + since
        asked = query[b, k * group : (k + 1) * group]
        read = np.empty((group, n), np.float32)
        whole = np.empty(n, np.int32)
        for i in range(n):
            row = keys[first + i] if i < old else tail_keys[b, k, i - old]
            for g in range(group):
                product = np.float32(0)
                for j in range(width):
                    product += asked[g, j] * row[j]
                read[g, i] = product * scale
        for g in range(group):
            best = read[g, 0]
            for i in range(n):
                best = max(best, read[g, i])
            for i in range(n):
                read[g, i] -= best
            exp_inplace(read[g], whole, n)
            total = np.float32(0)
            for i in range(n):
                total += read[g, i]
            inverse = np.float32(1) / total
            for i in range(n):
                read[g, i] *= inverse
            for j in range(wide):
                out[b, k * group + g, j] = np.float32(0)
        for i in range(n):
            row = values[first + i] if i < old else tail_values[b, k, i - old]
            for g in range(group):
                share, to = read[g, i], out[b, k * group + g]
                for j in range(wide):
                    to[j] += share * row[j]


@njit(parallel=True, **OPTIONS)
def close_up(flat, tail, ends, keep):  # type: ignore[no-untyped-def]
    """Move the entries that each head keeps into its places of ``flat``, in their order; there are as many as places.

    Args:
        flat: [N, width] uint8, written: the bytes of entries, the heads of all rows one behind the other.
        tail: [heads, since, width] uint8, those that came since.
        ends: [heads] int64, where the entries of each head end in ``flat``.
        keep: [heads, n] bool, of the entries of ``flat``, at the end where a head has fewer, and behind them ``tail``.
    """
    since, width = tail.shape[1], flat.shape[1]
    longest = keep.shape[1] - since
    for head in prange(len(ends)):
        first = ends[head - 1] if head else 0
        old, to = ends[head] - first, first
        for i in range(old + since):
            if keep[head, longest - old + i]:
                if i >= old:
                    for j in range(width):
                        flat[to, j] = tail[head, i - old, j]
                elif to < first + i:
                    for j in range(width):
                        flat[to, j] = flat[first + i, j]
                to += 1
