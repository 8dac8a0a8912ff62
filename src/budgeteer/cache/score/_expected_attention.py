"""Expected attention: what queries that have not come yet will read on the mean.

Paper: "Expected Attention: KV Cache Compression by Estimating Attention from Future Queries Distribution",
arXiv 2510.00636.
"""

from __future__ import annotations

import torch
from torch import Tensor

from budgeteer.cache.kit import behind, of_groups, turned
from budgeteer.cache.protocol import Cells, Score
from budgeteer.core.errors import InvalidInput


def expected_attention(sinks: int = 4, future: int = 512) -> Score:
    """Keep what a query drawn from the distribution of those so far reads, at the next positions, times its value.

    Formula: queries before their rotation are taken as normal, with the mean m and the covariance S of the queries of
    the call (without those of the first ``sinks`` tokens). With R the mean of the rotations of the next ``future``
    positions and c the scaling, m' = R m and S' = R S R^T:
    score_i = ||v_i||_2 x mean over the group's heads of softmax over i of (c k_i.m' + c^2 k_i^T S' k_i / 2), which is
    the logarithm of E[exp(c k_i.q)] for a normal q.
    Helps when the question comes later and resembles the text before it; no query of the prompt is singled out. It has
    to know how the model rotates its queries: frequencies of each layer, halves of a head as pairs (Llama, Qwen,
    Mistral, Phi, Gemma).

    Args:
        sinks: entries at the beginning that are always kept and not observed, >= 0.
        future: positions after the last token over which rotations are averaged, >= 1.
    """
    if sinks < 0 or future < 1:
        raise InvalidInput(f"expected-attention: sinks={sinks}, future={future}; give sinks >= 0 and future >= 1")

    def score(cells: Cells, memory: Tensor) -> Tensor:
        assert cells.frequencies is not None  # Score.rotation
        mean, spread = _future(cells, sinks, future, cells.frequencies)
        kv_heads = cells.keys.shape[1]
        keys = cells.keys.float()[:, :, None]  # [B, K, 1, n, d]
        logits = cells.scaling * (keys @ of_groups(mean, kv_heads)[..., None])[..., 0]
        logits = logits + cells.scaling**2 / 2 * ((keys @ of_groups(spread, kv_heads)) * keys).sum(-1)
        rest = behind(cells, sinks)
        read = torch.softmax(logits.masked_fill(~rest[:, :, None], float("-inf")), dim=-1).nan_to_num(0.0)
        norms: Tensor = torch.linalg.vector_norm(cells.values.float(), dim=-1)
        return read.mean(2) * norms

    return Score(score, first=sinks, rotation=True)


def _future(cells: Cells, sinks: int, future: int, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [B, H, d] and covariance [B, H, d, d] of queries at the next positions."""
    ahead = cells.query_slots[-1] + 1 - cells.query_slots
    queries = turned(cells.queries.float(), ahead, frequencies)  # each as if it stood behind the last token
    begins = ~(cells.valid & (cells.slots < cells.query_slots[0])).any(dim=(1, 2))  # the call has a row's first tokens
    seen = cells.query_valid & ((cells.query_valid.long().cumsum(-1) > sinks) | ~begins[:, None])
    weight = seen[:, None, :, None].float()
    count = weight.sum(2, keepdim=True).clamp(min=1)
    mean = (queries * weight).sum(2, keepdim=True) / count
    off = (queries - mean) * weight
    spread = off.transpose(-1, -2) @ off / count
    steps = torch.arange(future, device=queries.device)
    identity = torch.eye(queries.shape[-1], device=queries.device)
    rotation = turned(identity[:, None].expand(-1, future, -1), steps, frequencies).mean(1)  # row i is R e_i
    return (mean @ rotation)[:, :, 0], rotation.T @ spread @ rotation
