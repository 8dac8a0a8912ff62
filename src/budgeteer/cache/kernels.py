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


@njit(inline="always", **OPTIONS)
def softmax(x, whole, n):  # type: ignore[no-untyped-def]
    """x[:n] := exp(x[:n] - max) / its sum; whole is int32 scratch."""
    best = x[0]
    for i in range(n):
        best = max(best, x[i])
    for i in range(n):
        x[i] -= best
    exp_inplace(x, whole, n)
    total = np.float32(0)
    for i in range(n):
        total += x[i]
    inverse = np.float32(1) / total
    for i in range(n):
        x[i] *= inverse


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
            softmax(read[g], whole, n)
            for j in range(wide):
                out[b, k * group + g, j] = np.float32(0)
        for i in range(n):
            row = values[first + i] if i < old else tail_values[b, k, i - old]
            for g in range(group):
                share, to = read[g, i], out[b, k * group + g]
                for j in range(wide):
                    to[j] += share * row[j]


@njit(inline="always", **OPTIONS)
def unpack(row, bits, codes):  # type: ignore[no-untyped-def]
    """codes[p n + j] := the p-th code of the j-th of n bytes."""
    n = len(row)
    for p in range(8 // bits):
        shift, mask, first = p * bits, (1 << bits) - 1, p * n
        for j in range(n):
            codes[first + j] = np.float32(np.int32((row[j] >> shift) & mask))


@njit(parallel=True, **OPTIONS)
def decode_packed(  # type: ignore[no-untyped-def]
    query, keys, values, ends, tail_keys, tail_values, codes_k, steps_k, codes_v, steps_v, packed_ends, bits, together,
    scaling, out,
):  # fmt: skip
    """:func:`decode` over entries of which some are packed, as ``quantise`` holds them.

    q.k = sum_c (q_c step_c) code_c + q.least, so that codes are read as they are, once for all queries of a head.

    Args:
        query, keys, values, ends, tail_keys, tail_values, scaling, out: as :func:`decode` has them; entries that are
            not packed.
        codes_k, codes_v: [M, bytes] uint8, the packed entries of the heads of all rows one behind the other.
        steps_k: [groups, d, 2] float32, least value and step of each channel of ``together`` keys of a head.
        steps_v: [M, groups, 2] float32, the same of neighbouring channels of each value, of whole bytes.
        packed_ends: [B K] int64, where the packed entries of each head end.
        bits: of a code, 2, 4 or 8.
        together: keys of a group; the last one of a head may have fewer.
    """
    rows, kv_heads, since, width = tail_keys.shape
    group, wide = query.shape[1] // kv_heads, out.shape[2]
    scale, parts = np.float32(scaling), 8 // bits
    bytes_k, bytes_v, of_values = codes_k.shape[1], codes_v.shape[1], steps_v.shape[1]
    for cell in prange(rows * kv_heads):
        b, k = cell // kv_heads, cell % kv_heads
        first, from_packed, of_keys = 0, 0, 0
        for before in range(cell):
            many = packed_ends[before] - from_packed
            first, from_packed, of_keys = ends[before], packed_ends[before], of_keys + (many + together - 1) // together
        old, low = ends[cell] - first, packed_ends[cell] - from_packed
        n, whole_ones = old + low + since, old + since
        asked = query[b, k * group : (k + 1) * group]
        read = np.empty((group, n), np.float32)
        whole = np.empty(n, np.int32)
        for i in range(whole_ones):
            row = keys[first + i] if i < old else tail_keys[b, k, i - old]
            for g in range(group):
                product = np.float32(0)
                for j in range(width):
                    product += asked[g, j] * row[j]
                read[g, i] = product * scale
        codes = np.empty(parts * bytes_k, np.float32)
        stepped = np.zeros((group, parts * bytes_k), np.float32)
        least = np.empty(group, np.float32)
        for i in range(low):
            if i % together == 0:
                steps = steps_k[of_keys + i // together]
                for g in range(group):
                    total = np.float32(0)
                    for j in range(width):
                        stepped[g, j % parts * bytes_k + j // parts] = asked[g, j] * steps[j, 1]
                        total += asked[g, j] * steps[j, 0]
                    least[g] = total
            unpack(codes_k[from_packed + i], bits, codes)
            for g in range(group):
                product = least[g]
                for j in range(parts * bytes_k):
                    product += stepped[g, j] * codes[j]
                read[g, whole_ones + i] = product * scale
        for g in range(group):
            softmax(read[g], whole, n)
            for j in range(wide):
                out[b, k * group + g, j] = np.float32(0)
        for i in range(whole_ones):
            row = values[first + i] if i < old else tail_values[b, k, i - old]
            for g in range(group):
                share, to = read[g, i], out[b, k * group + g]
                for j in range(wide):
                    to[j] += share * row[j]
        four = np.zeros((4, parts * bytes_v), np.float32)  # entries at a time, else what is summed is read too often
        by, share_of = np.zeros(4, np.float32), np.zeros((group, of_values), np.float32)
        gathered = np.zeros((group, parts * bytes_v), np.float32)
        each = bytes_v // of_values
        for start in range(0, low, 4):
            here = min(4, low - start)
            for u in range(here):
                unpack(codes_v[from_packed + start + u], bits, four[u])
            for g in range(group):
                to = gathered[g]
                for w in range(of_values):
                    for u in range(4):
                        by[u] = np.float32(0)
                    for u in range(here):
                        share, steps = read[g, whole_ones + start + u], steps_v[from_packed + start + u, w]
                        by[u] = share * steps[1]
                        share_of[g, w] += share * steps[0]
                    by_0, by_1, by_2, by_3 = by[0], by[1], by[2], by[3]
                    for part in range(parts):
                        for j in range(part * bytes_v + w * each, part * bytes_v + (w + 1) * each):
                            to[j] += by_0 * four[0, j] + by_1 * four[1, j] + by_2 * four[2, j] + by_3 * four[3, j]
        for g in range(group):
            for j in range(wide):
                out[b, k * group + g, j] += (
                    gathered[g, j % parts * bytes_v + j // parts] + share_of[g, j // parts // each]
                )


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
