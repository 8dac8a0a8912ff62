"""Compactor: keys that stand out, and what a chunk reads when it looks both ways.

Paper: "Compactor: Calibrated Query-Agnostic KV Cache Compression with Approximate Leverage Scores", arXiv 2507.08143.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from budgeteer.cache.kit import behind, of_groups, smoothed, standard, turned
from budgeteer.cache.protocol import Cells, Score
from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor

RIDGE = 1e-2
"""Added to the diagonal of the keys' Gram matrix, so that it has an inverse."""


def compactor(sinks: int = 8, recent: int = 4, chunk: int = 128, blend: float = 0.5) -> Score:
    """Keep entries whose keys are unlike the others, and entries that their neighbourhood reads, in both directions.

    Formula, over the entries behind the first ``sinks``, with X the head's keys before their rotation less their mean:

    1. leverage l_i = x_i (X^T X + 0.01)^-1 x_i^T;
    2. attention c_i = ||v_i||_2 x mean over the group's heads of the sum over the queries j of a chunk of
       softmax over the entries i of that chunk of q_j.k_i, without a causal mask and unscaled, in a sliding layer over
       those nearer than its window; then the mean over 3 neighbours;
    3. score_i = z(c_i) + ``blend`` x z(l_i), z = less the mean over all heads of the layer, over the standard
       deviation.

    Helps when the question comes later: nothing looks at the end of the prompt. The paper approximates the leverage by
    a random sketch of the keys, which saves time for wide heads; here it is exact. The official code takes the scale of
    the logits as 1, too, and a ``blend`` of 0.5; kvpress takes the share that is dropped.

    Args:
        sinks: entries at the beginning that are always kept and not looked at, >= 0.
        recent: newest entries that are always kept, >= 0.
        chunk: entries that read each other, >= 1.
        blend: weight of the leverage, >= 0.
    """
    if min(sinks, recent, blend) < 0 or chunk < 1:
        raise InvalidInput(
            f"compactor: sinks={sinks}, recent={recent}, chunk={chunk}, blend={blend}; give a chunk >= 1 and no "
            "negative numbers"
        )

    def observe(cells: Cells, memory: Tensor) -> Tensor:
        """The attention of the new entries, each chunk by itself."""
        asked = cells.queries.shape[2]
        new = behind(cells, sinks)[:, 0, -asked:] & cells.query_valid
        memory = memory.clone()
        for row in range(new.shape[0]):
            found = new[row].nonzero()[:, 0]
            for places in torch.split(found, chunk) if len(found) else ():  # of nothing torch makes one empty chunk
                keys = cells.keys[row, :, -asked:][:, places].float()
                queries = of_groups(cells.queries[row : row + 1, :, places].float(), keys.shape[0])[0]
                logits = queries @ keys.transpose(-1, -2)[:, None]
                if cells.window is not None:
                    far = (places[:, None] - places).abs() >= cells.window
                    logits = logits.masked_fill(far, float("-inf"))
                read = torch.softmax(logits, dim=-1)
                memory[row, :, places - asked, 0] = read.sum(2).mean(1)
        return memory

    def score(cells: Cells, memory: Tensor) -> Tensor:
        there = behind(cells, sinks)
        read = memory[..., 0] * torch.linalg.vector_norm(cells.values.float(), dim=-1) * there
        all_heads = (1, 2)
        stands_out = standard(_leverage(cells, there), there, all_heads)
        return standard(smoothed(read, 3), there, all_heads) + blend * stands_out

    return Score(score, observe, remembers=1, first=sinks, recent=recent, rotation=True)


def _leverage(cells: Cells, there: Tensor) -> Tensor:
    """[B, K, n]: how far each key stands out of the others of its head, 0 to 1."""
    assert cells.frequencies is not None  # Score.rotation
    weight = there[..., None].double()
    keys = turned(cells.keys.double(), -cells.slots, cells.frequencies) * weight
    keys = (keys - keys.sum(2, keepdim=True) / weight.sum(2, keepdim=True).clamp(min=1)) * weight
    gram = keys.transpose(-1, -2) @ keys + RIDGE * torch.eye(keys.shape[-1], device=keys.device)
    solved: Tensor = torch.linalg.solve(gram, keys.transpose(-1, -2)).transpose(-1, -2)
    return (keys * solved).sum(-1)
