"""Compiled CPU kernels for decoding one token a row: what lies between the matrix products, and sampling.

torch's operators cost more in overhead than in arithmetic at these sizes: four fused kernels a layer replace some
twenty of them. Optional: without numba, or on a GPU, the sampler uses torch operators that compute the same.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np
from numba import float32, int64, njit, prange
from numba.core.caching import FunctionCache

_LOG2E = np.float32(1.4426950408889634)
OPTIONS: dict[str, Any] = {"cache": True, "fastmath": {"nnan", "ninf", "contract", "reassoc", "nsz", "arcp"}}
"""Of every kernel: sums may be reordered, so that they vectorise; infinities and NaN are not looked for."""


@njit(inline="always", **OPTIONS)
def exp_inplace(x, whole, n):  # type: ignore[no-untyped-def]
    """x[:n] := exp(x[:n]) for x <= 0, relative error < 4e-6; whole is int32 scratch. Simple loops vectorise."""
    for i in range(n):
        y = max(x[i], np.float32(-87.0)) * _LOG2E
        f = np.floor(y + np.float32(0.5))
        whole[i] = (np.int32(f) + np.int32(127)) << np.int32(23)
        r = (y - f) * np.float32(0.6931471805599453)
        p = np.float32(1.0 / 5040.0)
        p = p * r + np.float32(1.0 / 720.0)
        p = p * r + np.float32(1.0 / 120.0)
        p = p * r + np.float32(1.0 / 24.0)
        p = p * r + np.float32(1.0 / 6.0)
        p = p * r + np.float32(0.5)
        p = p * r + np.float32(1.0)
        x[i] = p * r + np.float32(1.0)
    scale = whole.view(np.float32)
    for i in range(n):
        x[i] *= scale[i]


@njit(parallel=True, **OPTIONS)
def norm_rows(x, weight, eps, out):  # type: ignore[no-untyped-def]
    """out := x / sqrt(mean(x^2) + eps) * weight, row by row; x, out [rows, n], weight [n], all float32."""
    n = np.float32(x.shape[1])
    for r in prange(len(x)):
        row, to = x[r], out[r]
        total = np.float32(0)
        for i in range(len(row)):
            total += row[i] * row[i]
        scale = np.float32(1) / np.sqrt(total / n + eps)
        for i in range(len(row)):
            to[i] = row[i] * scale * weight[i]


@njit(parallel=True, **OPTIONS)
def silu_rows(gate_up, out):  # type: ignore[no-untyped-def]
    """out := silu(gate) * up, row by row; gate_up [rows, 2 n] float32, out [rows, n] float32."""
    n = out.shape[1]
    for r in prange(len(gate_up)):
        gate, up, to = gate_up[r, :n], gate_up[r, n:], out[r]
        whole = np.empty(n, np.int32)
        for i in range(n):
            to[i] = -abs(gate[i])
        exp_inplace(to, whole, n)
        for i in range(n):  # sigmoid(z) = 1 / (1 + e) for z >= 0 and e / (1 + e) below, with e = exp(-|z|)
            e = to[i]
            to[i] = gate[i] * up[i] * (np.float32(1) if gate[i] >= 0 else e) / (np.float32(1) + e)


@njit(parallel=True, **OPTIONS)
def decode_attention(  # type: ignore[no-untyped-def]
    qkv, cos, sin, position, start, column, k_cache, v_cache, group, offset, k_prompt, v_prompt, heads, out
):
    """Rotate q and k, append k and v to the row's cache, attend to the shared prompt and to the row's own tokens.

    Args:
        qkv: [rows, (heads + 2 kv_heads) * d] float32 projections of the new token.
        cos, sin: [positions, d] rotary tables (sin carries the sign of rotate_half).
        position: [rows] int64 position of the new token in its own sequence.
        start: [rows] int64 first column of the row's own tokens.
        column: column of the new token, the same for all rows.
        k_cache, v_cache: [slots, kv_heads, d, columns], written: columns last, so that every loop over them is a
            contiguous one.
        group: [rows] int64 prompt of the row; offset: [prompts] int64 first column of each prompt.
        k_prompt, v_prompt: [prompts, kv_heads, d, p], right-aligned; read by all rows of a prompt, so that they stay
            in the nearest cache.
        heads: number of query heads.
        out: [rows, heads * d], written.
    """
    rows, (_, kv_heads, d, _) = len(qkv), k_cache.shape
    p = k_prompt.shape[3]
    per = heads // kv_heads
    half = d // 2
    scale = np.float32(1.0 / np.sqrt(d))
    for r in prange(rows):
        first, skip, which = start[r], offset[group[r]], group[r]
        own, shared = column + 1 - first, p - skip
        n = shared + own
        scores = np.empty(n, np.float32)
        whole = np.empty(n, np.int32)
        mine = scores[shared:]
        c, s = cos[position[r]], sin[position[r]]
        for g in range(kv_heads):
            base = (heads + g) * d
            k, v = k_cache[r, g], v_cache[r, g]
            k0, v0 = k_prompt[which, g], v_prompt[which, g]
            for i in range(d):
                j = i - half if i >= half else i + half
                k[i, column] = qkv[r, base + i] * c[i] + qkv[r, base + j] * s[i]
                v[i, column] = qkv[r, base + kv_heads * d + i]
            for h in range(g * per, (g + 1) * per):
                q0 = h * d
                for t in range(n):
                    scores[t] = np.float32(0)
                for i in range(d):
                    j = i - half if i >= half else i + half
                    q = (qkv[r, q0 + i] * c[i] + qkv[r, q0 + j] * s[i]) * scale
                    row = k0[i, skip:]
                    for t in range(shared):
                        scores[t] += q * row[t]
                    row = k[i, first : first + own]
                    for t in range(own):
                        mine[t] += q * row[t]
                top = scores[0]
                for t in range(n):
                    top = max(top, scores[t])
                for t in range(n):
                    scores[t] -= top
                exp_inplace(scores, whole, n)
                total = np.float32(0)
                for t in range(n):
                    total += scores[t]
                inverse = np.float32(1) / total
                for i in range(d):
                    row = v0[i, skip:]
                    o = np.float32(0)
                    for t in range(shared):
                        o += scores[t] * row[t]
                    row = v[i, first : first + own]
                    for t in range(own):
                        o += mine[t] * row[t]
                    out[r, q0 + i] = o * inverse


@njit(parallel=True, **OPTIONS)
def prefill_attention(qkv, cos, sin, k_prompt, v_prompt, heads, out):  # type: ignore[no-untyped-def]
    """Rotate q and k of one prompt, write k and v to the end of its shared cache, and attend causally.

    Args:
        qkv: [n, (heads + 2 kv_heads) * d] float32 projections of the prompt's tokens, positions from 0.
        cos, sin: [positions, d] rotary tables (sin carries the sign of rotate_half).
        k_prompt, v_prompt: [kv_heads, d, p], p >= n; the last n columns are written.
        heads: number of query heads.
        out: [n, heads * d], written.
    """
    n, (kv_heads, d, p) = len(qkv), k_prompt.shape
    per, half = heads // kv_heads, d // 2
    scale = np.float32(1.0 / np.sqrt(d))
    for e in prange(kv_heads * d):
        g, i = e // d, e % d
        base = (heads + g) * d
        j = i - half if i >= half else i + half
        k, v = k_prompt[g, i, p - n :], v_prompt[g, i, p - n :]
        for t in range(n):
            k[t] = qkv[t, base + i] * cos[t, i] + qkv[t, base + j] * sin[t, i]
            v[t] = qkv[t, base + kv_heads * d + i]
    for r in prange(n):
        seen = r + 1
        scores = np.empty(seen, np.float32)
        whole = np.empty(seen, np.int32)
        for h in range(heads):
            k, v, q0 = k_prompt[h // per], v_prompt[h // per], h * d
            for t in range(seen):
                scores[t] = np.float32(0)
            for i in range(d):
                j = i - half if i >= half else i + half
                q = (qkv[r, q0 + i] * cos[r, i] + qkv[r, q0 + j] * sin[r, i]) * scale
                row = k[i, p - n :]
                for t in range(seen):
                    scores[t] += q * row[t]
            top = scores[0]
            for t in range(seen):
                top = max(top, scores[t])
            for t in range(seen):
                scores[t] -= top
            exp_inplace(scores, whole, seen)
            total = np.float32(0)
            for t in range(seen):
                total += scores[t]
            inverse = np.float32(1) / total
            for i in range(d):
                row = v[i, p - n :]
                o = np.float32(0)
                for t in range(seen):
                    o += scores[t] * row[t]
                out[r, q0 + i] = o * inverse


@njit(parallel=True, **OPTIONS)
def sample_rows(logits, inverse_temperature, uniform, token, logprob, margin):  # type: ignore[no-untyped-def]
    """Draw one token a row by inverse transform, with its log-probability and the distribution's margin.

    Args:
        logits: [rows, vocab] float32.
        inverse_temperature: [rows] float32, 1 / temperature.
        uniform: [rows] float32 in [0, 1).
        token: [rows] int64, written; logprob: [rows] float32, written, log-probability at temperature 1 / inverse;
        margin: [rows] float32, written, p(1st) - p(2nd).
    """
    rows, vocab = logits.shape
    for r in prange(rows):
        p = np.empty(vocab, np.float32)
        whole = np.empty(vocab, np.int32)
        top, inverse = logits[r, 0], inverse_temperature[r]
        for i in range(vocab):
            top = max(top, logits[r, i])
        for i in range(vocab):
            p[i] = (logits[r, i] - top) * inverse
        exp_inplace(p, whole, vocab)
        total = np.float32(0)
        for i in range(vocab):
            total += p[i]
        target = uniform[r] * total
        seen = np.float32(0)
        chosen = -1
        first, second = np.float32(0), np.float32(0)
        for i in range(vocab):
            seen += p[i]
            if chosen < 0 and seen > target:
                chosen = i
            if p[i] > first:
                second = first
                first = p[i]
            elif p[i] > second:
                second = p[i]
        if chosen < 0:  # rounding: the uniform lies past the accumulated mass
            chosen = int(np.argmax(p))
        token[r] = chosen
        logprob[r] = (logits[r, chosen] - top) * inverse - np.log(total)
        margin[r] = (first - second) / total


_F1, _F2, _F3, _F4, _I1 = float32[::1], float32[:, ::1], float32[:, :, ::1], float32[:, :, :, ::1], int64[::1]
SIGNATURES: dict[Any, tuple[Any, ...]] = {
    norm_rows: (_F2, _F1, float32, _F2),
    silu_rows: (_F2, _F2),
    decode_attention: (_F2, _F2, _F2, _I1, _I1, int64, _F4, _F4, _I1, _I1, _F4, _F4, int64, _F2),
    prefill_attention: (_F2, _F2, _F2, _F3, _F3, int64, _F2),
    sample_rows: (_F2, _F1, _F1, _I1, _F1, _F1),
}
"""Kernel -> the types it is called with."""


@cache
def prepare() -> None:
    """Compile what is not in numba's cache yet, in a process of its own.

    A process that compiles a parallel function links it in another way than one that reads it from the cache, and its
    sums are rounded otherwise: the first run after an installation would differ from all later ones.
    """
    if all(_is_cached(kernel, types) for kernel, types in SIGNATURES.items()):
        return
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import compile_all; compile_all()"
    subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)


def compile_all() -> None:
    """Compile all kernels in this process, into numba's cache."""
    for kernel, types in SIGNATURES.items():
        kernel.compile(types)


def _is_cached(kernel: Any, types: tuple[Any, ...]) -> bool:
    """Whether a kernel would be read from the cache; True where there is no cache, so that nothing is prepared."""
    place = getattr(kernel, "_cache", None)
    return not isinstance(place, FunctionCache) or place.load_overload(types, kernel.targetctx) is not None  # type: ignore[no-untyped-call]
