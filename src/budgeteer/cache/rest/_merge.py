"""Merging: the values of what is dropped go into the most similar entries that are kept.

Papers: "EMS: Adaptive Evict-then-Merge Strategy for Head-wise KV Cache Compression Based on Global-Local Importance",
arXiv 2412.08521; "D2O: Dynamic Discriminative Operations for Efficient Long-Context Inference of Large Language
Models", arXiv 2406.13035.
"""

from __future__ import annotations

import torch
from torch import Tensor

from budgeteer.cache.protocol import Leaving, Rest
from budgeteer.core.errors import InvalidInput

_BLOCK = 512
"""Dropped entries whose similarities are computed at a time."""


def merge(threshold: float = 0.0) -> Rest:
    """Merge each dropped value into that of the kept entry whose key is most similar, or into nothing.

    Formula: for a dropped entry i of a head, c = the kept entry with the largest cosine s of its key to that of i. If
    s < ``threshold``, i goes to the zero class and is lost (EMS). Else it has the weight
    w_i = max(s, 0) ||v_i|| / (||v_i|| + ||v_c||), and v_c becomes (v_c + sum of w_i v_i) / (1 + sum of w_i) over all i
    of c. Keys stay, since they carry their positions. These weights are kvpress's; those of EMS are not published.
    Helps when dropped entries resemble kept ones. Where keys have nothing in common, it blurs values for nothing, and a
    threshold near 1 is ``drop``.

    Args:
        threshold: least cosine of a merge, -1 to 1.
    """
    if not -1 <= threshold <= 1:
        raise InvalidInput(f"merge: threshold={threshold}; give a cosine from -1 to 1")

    def fold(leaving: Leaving) -> tuple[Tensor, Tensor]:
        keys, values = leaving.keys.float(), leaving.values.float()
        unit = keys / torch.linalg.vector_norm(keys, dim=-1, keepdim=True).clamp(min=1e-6)
        norm = torch.linalg.vector_norm(values, dim=-1)
        gone = leaving.valid & ~leaving.keep
        total, weights = torch.zeros_like(values), torch.zeros_like(norm)
        for start in range(0, keys.shape[2], _BLOCK):
            here = slice(start, start + _BLOCK)
            cosine = (unit[:, :, here] @ unit.transpose(-1, -2)).masked_fill(~leaving.keep[:, :, None], -2.0)
            best, target = cosine.max(dim=-1)
            weight = best.clamp(min=0) * norm[:, :, here] / (norm[:, :, here] + norm.gather(2, target) + 1e-6)
            weight = weight * (gone[:, :, here] & (best >= threshold))
            weights.scatter_add_(2, target, weight)
            moved = weight[..., None] * values[:, :, here]
            total.scatter_add_(2, target[..., None].expand_as(moved), moved)
        merged = ((values + total) / (1 + weights[..., None])).to(leaving.values.dtype)
        return leaving.keys, torch.where(weights[..., None] > 0, merged, leaving.values)

    return Rest(fold)
