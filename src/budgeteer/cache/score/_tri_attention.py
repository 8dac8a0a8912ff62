"""TriAttention: at which distances the heads of this model read, from where their queries lie before rotation.

Paper: "TriAttention: Efficient Long Reasoning with Trigonometric KV Compression", arXiv 2604.04921.
"""

from __future__ import annotations

import torch
from torch import Tensor

from budgeteer.cache.kit import of_groups, standard, turned
from budgeteer.cache.protocol import Cells, Score
from budgeteer.core.errors import InvalidInput


def tri_attention(window: int = 256, reach: int = 65_536, every: int = 0) -> Score:
    """Keep what the mean query would read from the positions to come, and keys that are long where queries vary.

    Formula for a query head, with q the queries before their rotation, f the pairs of numbers that are rotated
    together (as complex numbers) and w_f their frequencies, for a key k at distance D from the next position:
    s = mean over d in 1, 2, 4, ... ``reach`` of Re sum over f of E[q_f] conj(k_f) exp(i w_f (D + d))
    + sum over f of (E|q_f| - |E[q_f]|) |k_f|. Less its mean over the entries and over their standard deviation, and
    then the largest of the group's heads.
    Helps in long generations: the queries of a head keep to one place before rotation, so that a few of them say what
    the later ones are like. The paper takes E[q] and E|q| from texts beforehand; here they are those of the last
    ``window`` queries. It has to know how the model rotates its queries: frequencies of each layer, halves of a head as
    pairs (Llama, Qwen, Mistral, Phi, Gemma).

    Args:
        window: queries that are observed, >= 1; their entries have no privilege.
        reach: the farthest position ahead, >= 1.
        every: 0 = choose after prompts only; k = after every k generated tokens, too (the paper: 128).
    """
    if window < 1 or reach < 1:
        raise InvalidInput(f"tri-attention: window={window}, reach={reach}; give 1 or more of both")

    def score(cells: Cells, memory: Tensor) -> Tensor:
        assert cells.frequencies is not None  # Score.rotation
        frequencies, kv_heads = cells.frequencies, cells.keys.shape[1]
        ahead = cells.query_slots[-1] + 1 - cells.query_slots
        queries = turned(cells.queries.float(), ahead, frequencies)  # each as if it stood behind the last token
        weight = cells.query_valid[:, None, :, None].float()
        count = weight.sum(2).clamp(min=1)
        mean = (queries * weight).sum(2) / count  # [B, H, d]
        offsets = 2 ** torch.arange(reach.bit_length(), device=queries.device)
        later = turned(mean[:, :, None].expand(-1, -1, len(offsets), -1), offsets, frequencies).mean(2)
        varied = (_lengths(queries, frequencies) * weight).sum(2) / count - _lengths(mean, frequencies)
        keys = cells.keys.float()[:, :, None]  # [B, K, 1, n, d]
        scores = (keys @ of_groups(later, kv_heads)[..., None])[..., 0]
        scores = scores + (_lengths(keys, frequencies) @ of_groups(varied, kv_heads)[..., None])[..., 0]
        return standard(scores, cells.valid[:, :, None], (3,)).amax(2)

    return Score(score, window=window, every=every, rotation=True)


def _lengths(vectors: Tensor, frequencies: Tensor) -> Tensor:
    """[..., r / 2]: the lengths of the pairs of numbers that are rotated together."""
    half = frequencies.shape[0]
    return torch.hypot(vectors[..., :half], vectors[..., half : 2 * half])
